"""A whole study on W&B: every run rebuilt from its files, so that killed, resumed and parallel runs arrive whole."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from dsa.study.claim import read, write
from dsa.study.store import sound
from dsa.training.dashboard import final_values, flat
from dsa.training.mirrors import WandbMirror
from dsa.training.result import FILE, RunResult

SYNCED = "synced.json"


def sync(folder: Path, mode: str = "auto") -> tuple[int, int]:
    """Upload the runs of a study that changed since the last time; how many went, and how many had nothing new.

    Offline, a run's rebuilt files replace those of the last time (<run>/wandb-rebuilt).
    """
    sent = unchanged = 0
    labels = {run["run_id"]: run["label"] for run in read(folder / "study.json").get("runs", [])}
    for path in sorted(folder.glob(f"*/{FILE}")):
        run = path.parent
        print_of = fingerprint(run, mode)
        if read(run / SYNCED).get("content") == print_of:
            unchanged += 1
            continue
        result = sound(run)
        if result is not None:
            rebuild(run, result, labels.get(result.run_id), mode)
            write(run / SYNCED, {"content": print_of})
            sent += 1
    return sent, unchanged


def fingerprint(run: Path, mode: str) -> str:
    """Hash of what a run would send."""
    source = metrics_of(run)
    content = (run / FILE).read_bytes() + (source.read_bytes() if source.exists() else b"") + mode.encode()
    return hashlib.sha256(content).hexdigest()


def metrics_of(run: Path) -> Path:
    """metrics.csv of a run, at its origin if it was linked."""
    result = sound(run)
    return Path(result.reused_from if result and result.reused_from else run) / "metrics.csv"


def rebuild(run: Path, result: RunResult, label: str | None, mode: str) -> None:
    """One W&B run from metrics.csv and result.json, under the id that the live run has."""
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
    mirror.start(target, identity_of(cfg, result, label, list(dict.fromkeys(rows["stage"]))), settings(cfg, result))
    for row in rows.to_dict("records"):
        fixed = ("step", "stage", "stage_step", "kind")
        values = {str(k): float(v) for k, v in row.items() if k not in fixed and pd.notna(v)}
        mirror.log(str(row["stage"]), int(row["stage_step"]), int(row["step"]), values)
    mirror.summary(final_values(result) | ({} if result.error is None else {"reason": result.error["reason"]}))
    mirror.finish(failed=result.status != "finished")


def identity_of(cfg: DictConfig, result: RunResult, label: str | None, stages: list[str]) -> dict[str, Any]:
    """Id, name, group, job type and tags, as the live run gives them."""
    parts = [f"{group}:{option}" for group, option in result.condition.items()]
    return {
        "id": f"{result.study}-{result.run_id}",
        "name": result.run_id,
        "group": cfg.get("group") or result.study,
        "job_type": label or "run",
        "tags": [f"L{result.seq_len}", f"seed{result.seed}", *parts],
        "stages": stages,
        "resumed": False,
    }


def settings(cfg: DictConfig, result: RunResult) -> dict[str, Any]:
    """The configuration flat, the option chosen in each group first."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    named = {group: option for group, option in plain.get("choices", {}).items() if option is not None}
    return flat(plain, skip=("choices", "overridden")) | named | {"run_id": result.run_id, "dtype": result.dtype}
