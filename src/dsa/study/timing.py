"""Speed that may be ranked: the conditions of a length timed alone, in turns, on this machine.

Times taken while runs trained may have had company; whether these had is recorded. Nothing is trained for them: the
weights of finished runs are loaded, and a step at learning rate 0 leaves them as they are.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dsa.build import build_data, instantiate
from dsa.model import Pass
from dsa.study.claim import read, write
from dsa.study.store import planned, sound
from dsa.training.fit import make_trainer
from dsa.training.load import load_run
from dsa.training.measure import Contention, inference, milliseconds
from dsa.training.objective import language_model_loss
from dsa.training.plan import compute_dtype, needs_indexer
from dsa.training.provenance import provenance

FILE, SCHEMA, ROUNDS = "timing.json", 2, 5
CONTENDED = 0.1  # share of the cores that others may use before times count as contended


def time_study(folder: Path, again: bool = False, allow_targets: Sequence[str] = ()) -> None:
    """Write timing.json: by length and condition the medians over turns of a training step and a forward pass [ms].

    Conditions of a length take turns, so that a machine that slows down slows them all; dense attention takes part. A
    length that was timed alone on these very runs is not timed again.

    Args:
        again: time even so.
        allow_targets: packages of the user's own whose classes the runs' configurations may name.

    Raises:
        TargetRefused: a run's configuration names a class of another package.
    """
    plan, known = planned(folder), read(folder / FILE)
    out: dict[str, Any] = {}
    for length in plan["seq_len"]:
        ready = finished_runs(folder, plan, length)
        ids = sorted(place.name for place in ready.values())
        before = known.get(str(length), {})
        good = before.get("schema") == SCHEMA and before["runs"] == ids and not before["contended"]
        out[str(length)] = (
            before if good and not again else {"schema": SCHEMA, "runs": ids} | in_turns(ready, allow_targets)
        )
    write(folder / FILE, out)


def finished_runs(folder: Path, plan: dict[str, Any], seq_len: int) -> dict[str, Path]:
    """For each condition and control, one finished run: where its weights are.

    Where no dense control trained, since nothing trained after the indexers, the dense base stands for it.
    """
    out: dict[str, Path] = {}
    bases: dict[str, Path] = {}
    for run in plan["runs"]:
        base = run["role"] == "base"
        label = "-".join(filter(None, ("dense", run["context"]))) if base else run["label"]
        if run["run_id"] is None or run["seq_len"] != seq_len or label in (bases if base else out):
            continue
        result = sound((folder.parent / run["study"] if base else folder) / run["run_id"])
        if result is not None and result.status == "finished":
            (bases if base else out)[label] = Path(result.reused_from or result.folder)
    return out | {label: place for label, place in bases.items() if label not in out and "dense" in plan["controls"]}


def in_turns(folders: dict[str, Path], allow_targets: Sequence[str]) -> dict[str, Any]:
    """Times by label, how many turns each had, where, and whether other processes were busy meanwhile."""
    timed = {label: Timed(folder, allow_targets) for label, folder in folders.items()}
    turns: dict[str, list[dict[str, float]]] = {label: [] for label in timed}
    company = Contention()
    for _ in range(ROUNDS):
        for label, one in timed.items():
            turns[label].append(one.turn())
    medians = {
        label: {name: statistics.median(turn[name] for turn in taken) for name in taken[0]}
        for label, taken in turns.items()
    }
    others = company.others()
    return {
        "contended": others > CONTENDED,
        "others": others,
        "rounds": ROUNDS,
        "machine": provenance("")["machine"],
        "times": medians,
        "turns": turns,
    }


class Timed:
    """A finished run's model with what its training step needs."""

    def __init__(self, folder: Path, allow_targets: Sequence[str] = ()) -> None:
        cfg: Any = OmegaConf.load(folder / "config.yaml")
        cfg.allow_targets = list(allow_targets)
        data = build_data(cfg)
        self.cfg, self.model = cfg, load_run(folder, allow_targets)
        self.batch, self.row = data.batch("sparse", 0), next(iter(data.eval_loader())).tokens[:1]
        result = sound(folder)
        self.sparse = result is not None and result.condition["selector"] != "dense"
        self.teach = self.sparse and needs_indexer(cfg) and cfg.objective.train_when_sparse
        self.half = compute_dtype(cfg) == "bf16"
        self.device = make_trainer(cfg, "fp32").strategy.root_device

    def turn(self) -> dict[str, float]:
        """One training step on a whole batch and one forward pass over a row, warmed up; the model then makes room."""
        self.model.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            out = {"step_ms": self.step_ms()} | inference(self.model, self.row.to(self.device), self.sparse)
        self.model.to("cpu")
        return out

    def step_ms(self) -> float:
        """A step as in the run's last stage: forward, both losses, backward, clipping, optimiser [ms]."""
        model, tokens, targets = self.model, self.batch.tokens.to(self.device), self.batch.targets.to(self.device)
        groups = [model.backbone_parameters(), model.indexer_parameters() if self.teach else []]
        groups = [group for group in groups if group]
        optimizer = instantiate(self.cfg, "optimizer")([{"params": group, "lr": 0.0} for group in groups])
        how = Pass(sparse=self.sparse, teach=self.teach, progress=1.0, step=1)

        def step() -> None:
            logits, indexer_loss = model.run(tokens, how)
            loss = language_model_loss(logits, targets)
            (loss + self.cfg.objective.weight * indexer_loss if self.teach else loss).backward()
            for group in groups:
                torch.nn.utils.clip_grad_norm_(group, self.cfg.recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        model.train()
        took = milliseconds(step, repeats=1)
        model.eval()
        return took
