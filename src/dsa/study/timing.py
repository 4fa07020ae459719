"""Speed that may be ranked: the conditions of a length timed alone, in turns, on this machine.

Times taken while runs trained may have had company; these have none, and what company there was is recorded.
"""

import statistics
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dsa import load_run
from dsa.build import build_data
from dsa.study.claim import read, write
from dsa.study.plan import StudyPlan
from dsa.study.store import sound
from dsa.training.measure import Contention, inference
from dsa.training.plan import compute_dtype

FILE, ROUNDS = "timing.json", 5
CONTENDED = 0.1  # share of the cores that others may use before times count as contended


def time_study(plan: StudyPlan, folder: Path) -> None:
    """Write timing.json: forward passes of one row by condition and length, the median over turns [ms].

    Conditions of a length take turns, so that a machine that slows down slows them all. A length that was timed on
    these very runs is not timed again.
    """
    known = read(folder / FILE)
    out: dict[str, Any] = {}
    for length in plan.study.seq_len:
        runs = {run.label: run for run in plan.applicable if run.kind != "base" and run.seq_len == length}
        origins = {label: origin(folder / run.run_id) for label, run in runs.items()}
        ready = {label: place for label, place in origins.items() if place is not None}
        ids = sorted(place.name for place in ready.values())
        before = known.get(str(length))
        out[str(length)] = before if before and before["runs"] == ids else {"runs": ids} | in_turns(ready)
    write(folder / FILE, out)


def origin(folder: Path) -> Path | None:
    """Where a finished run's weights are: its own folder, or the one it was linked from."""
    result = sound(folder)
    if result is None or result.status != "finished":
        return None
    return Path(result.reused_from) if result.reused_from else folder


@torch.no_grad()
def in_turns(folders: dict[str, Path]) -> dict[str, Any]:
    """Times by label, and whether other processes were busy meanwhile."""
    models, rows = {}, {}
    for label, folder in folders.items():
        cfg = OmegaConf.load(folder / "config.yaml")
        models[label] = load_run(folder)
        rows[label] = (next(iter(build_data(cfg).eval_loader())).tokens[:1], compute_dtype(cfg) == "bf16")  # type: ignore[arg-type]
    times: dict[str, list[dict[str, float]]] = {label: [] for label in models}
    company = Contention()
    for _ in range(ROUNDS):
        for label, model in models.items():
            tokens, half = rows[label]
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                times[label].append(inference(model, tokens, sparse=True))
    medians = {
        label: {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
        for label, turns in times.items()
    }
    return {"contended": company.others() > CONTENDED, "times": medians}
