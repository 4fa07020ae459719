"""A whole study on W&B: every run rebuilt from its files, so that killed, resumed and parallel runs arrive whole."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from dsa.atomic import write_json
from dsa.config import choice
from dsa.study.claim import read
from dsa.study.store import planned, sound
from dsa.training.dashboard import final_values, flat
from dsa.training.mirrors import WandbMirror
from dsa.training.plan import SHARED
from dsa.training.result import FILE, RunResult

SYNCED = "synced.json"


@dataclass(frozen=True)
class Synced:
    """What became of a study's runs: sent, had nothing new, could not be sent."""

    sent: list[Path]
    unchanged: list[Path]
    lost: list[Path]


def sync(folder: Path, mode: str = "auto") -> Synced:
    """Upload the runs of a study that changed since the last time, the dense ones that it stands on too.

    Every run folder is one run of W&B's, whose id the live run has. Offline, its rebuilt files replace those of the
    last time (<run>/wandb-rebuilt).
    """
    out = Synced([], [], [])
    for run, label, group in runs_of(folder):
        print_of = fingerprint(run, mode)
        result = sound(run)
        if result is None:
            continue
        if read(run / SYNCED).get("content") == print_of:
            out.unchanged.append(run)
        elif rebuild(run, result, label, group, mode):
            write_json(run / SYNCED, {"content": print_of})
            out.sent.append(run)
        else:
            out.lost.append(run)
    return out


def runs_of(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """A study's run folders with a result, then those of its dense runs: with label and group."""
    plan = planned(folder)
    own = f"{plan['name']} {plan['created']}"
    seen: set[Path] = set()
    for home, group in ((folder, own), (folder.parent / SHARED, SHARED)):
        for one in plan["runs"]:
            run = home / str(one["run_id"])
            if run not in seen and (run / FILE).exists():
                seen.add(run)
                yield run, one["kind"] if one["role"] == "base" else one["label"], group


def fingerprint(run: Path, mode: str) -> str:
    """Hash of what a run would send."""
    source = metrics_of(run)
    content = (run / FILE).read_bytes() + (source.read_bytes() if source.exists() else b"") + mode.encode()
    return hashlib.sha256(content).hexdigest()


def metrics_of(run: Path) -> Path:
    """metrics.csv of a run, at its origin if it was linked."""
    result = sound(run)
    return Path(result.reused_from if result and result.reused_from else run) / "metrics.csv"


def rebuild(run: Path, result: RunResult, label: str, group: str, mode: str) -> bool:
    """One W&B run from metrics.csv and result.json, under the id that the live run has; whether that went well."""
    cfg = OmegaConf.load(run / "config.yaml")
    assert isinstance(cfg, DictConfig)
    project, entity = ("dsa", None)
    if "project" in cfg.logger:
        project, entity = cfg.logger.project, cfg.logger.entity
    mirror = WandbMirror(project, entity, mode)
    target = run / "wandb-rebuilt"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    source = metrics_of(run)
    rows = pd.read_csv(source) if source.exists() else pd.DataFrame({"stage": []})
    stages = list(dict.fromkeys(rows["stage"]))
    mirror.start(target, identity_of(result, label, group, stages), settings(cfg, result))
    for row in rows.to_dict("records"):
        fixed = ("step", "stage", "stage_step", "kind")
        values = {str(k): float(v) for k, v in row.items() if k not in fixed and pd.notna(v)}
        mirror.log(str(row["stage"]), int(row["stage_step"]), int(row["step"]), values)
    mirror.summary(final_values(result) | ({} if result.error is None else {"reason": result.error["reason"]}))
    mirror.finish(failed=result.status != "finished")
    return not mirror.broken


def identity_of(result: RunResult, label: str, group: str, stages: list[str]) -> dict[str, Any]:
    """Id, name, group, job type and tags, as the live run gives them."""
    parts = [f"{group}:{option}" for group, option in result.condition.items()]
    return {
        "id": f"{result.study}-{result.run_id}",
        "name": result.run_id,
        "group": group,
        "job_type": label,
        "tags": [f"L{result.seq_len}", f"seed{result.seed}", *parts],
        "stages": stages,
        "resumed": False,
    }


def settings(cfg: DictConfig, result: RunResult) -> dict[str, Any]:
    """The configuration flat, the option chosen in each group first."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    named = {group: choice(cfg, group) for group in cfg.choices} | result.condition
    own = {"run_id": result.run_id, "base_run_id": result.base_run_id, "dtype": result.dtype}
    return flat(plain, skip=("choices", "overridden")) | named | own | {"git": result.provenance.get("git")}
