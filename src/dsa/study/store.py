"""What is known about runs, read from their folders: there is no other state."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from dsa.checks import folder_name
from dsa.config import config_dir
from dsa.study.claim import given_up, read, working
from dsa.study.queue import queued
from dsa.training.provenance import code_fingerprint
from dsa.training.result import FILE, RunResult, read_result

STUDY = "study.json"
OF_A_RUN = {"label", "role", "kind", "context", "seq_len", "seed", "run_id", "config_hash", "study"}

State = Literal["done", "failed", "running", "queued", "stale", "interrupted", "missing"]


def state(folder: Path, stale: str = "rerun", allow_targets: Sequence[str] = ()) -> State:
    """How far a run is.

    stale: its result was made by other code of this package. interrupted: it began and nobody works on it now.

    Args:
        stale: keep counts such a result as done.
        allow_targets: the user's own packages; a run whose configuration names others is stale.
    """
    result = sound(folder)
    if working(folder):
        return "running"
    if result is not None and result.status == "finished":
        return "done" if stale == "keep" or same_code(folder, result, allow_targets) else "stale"
    if queued(folder):
        return "queued"
    if result is not None:
        return "failed"
    begun = given_up(folder) or (folder / "checkpoints").exists()
    return "interrupted" if begun else "missing"


def same_code(folder: Path, result: RunResult, allow_targets: Sequence[str]) -> bool:
    """Whether this very code made a result; the user's own packages count where the run names them.

    Packages are looked at, which may import them, only if the user names them too: no folder vouches for itself.
    """
    made_by = result.provenance.get("code")
    if made_by == code_fingerprint(()):
        return True
    packages = packages_named(folder)
    return bool(packages) and set(packages) <= set(allow_targets) and made_by == code_fingerprint(packages)


def packages_named(folder: Path) -> tuple[str, ...]:
    """The user's own packages that a run's configuration names."""
    config = folder / "config.yaml"
    return tuple(OmegaConf.select(OmegaConf.load(config), "allow_targets", default=())) if config.exists() else ()


def sound(folder: Path) -> RunResult | None:
    """The result in a folder; None if there is none or it is damaged."""
    try:
        return read_result(folder)
    except (ValueError, TypeError, OSError):
        return None


def trained_elsewhere(folder: Path) -> bool:
    """Whether another study trains this very run now."""
    same = folder.parent.parent.glob(f"*/*-{folder.name.rsplit('-', 1)[-1]}")
    return any(working(other) for other in same if other != folder)


class Finished:
    """Finished runs below an output folder, by the hash of their configuration.

    Args:
        allow_targets: the user's own packages.
    """

    def __init__(self, outputs: Path, allow_targets: Sequence[str]) -> None:
        self.allow_targets = allow_targets
        self.folders: dict[str, list[Path]] = {}
        for folder in sorted(outputs.glob("*/*-*")):
            self.folders.setdefault(folder.name.rsplit("-", 1)[-1], []).append(folder)

    def elsewhere(self, config_hash: str, here: Path, stale: str) -> Path | None:
        """Another folder that holds this very run, finished."""
        for folder in self.folders.get(config_hash, []):
            if folder.resolve() == here.resolve() or state(folder, stale, self.allow_targets) != "done":
                continue
            result = sound(folder)
            if result and result.config_hash == config_hash and not result.reused_from:
                return folder
        return None


def planned(folder: Path) -> dict[str, Any]:
    """The plan in a study's folder.

    Raises:
        ValueError: there is none, other code wrote it, without something that is needed now, or it names folders
            outside the output folder.
    """
    plan = read(folder / STUDY)
    if not plan:
        raise ValueError(f"{folder}: no {STUDY} there. Give the folder of a study, outputs/<study>.")
    lacking = sorted(set().union(*(OF_A_RUN - run.keys() for run in plan["runs"])))
    if lacking:
        shipped = (config_dir() / "study" / f"{plan['name']}.yaml").exists()
        again = f"python sweep.py {'study' if shipped else 'name'}={plan['name']} stale=keep"
        raise ValueError(
            f"{folder / STUDY}: older code planned it, its runs lack {', '.join(lacking)}. Plan it again: {again}, "
            "with the lists that you gave before; stale=keep accepts the results that are there."
        )
    for run in plan["runs"]:
        for name in ("study", "run_id"):
            if run[name] is not None:
                folder_name(run[name], f"{folder / STUDY}: {name}")
    return plan


def gather(folder: Path, stale: str, allow_targets: Sequence[str] = ()) -> None:
    """Link what a study shares into its folder: runs that another study trained, and dense controls."""
    known = Finished(folder.parent, allow_targets)
    for run in planned(folder)["runs"]:
        if run["run_id"] is None or run["role"] == "base":
            continue
        target = folder / run["run_id"]
        if state(target, stale, allow_targets) in ("done", "running"):
            continue
        source = known.elsewhere(run["config_hash"], target, stale)
        if source is not None:
            link(source, target, folder.name)


def link(source: Path, folder: Path, study: str) -> RunResult:
    """Take another study's run into this one: its result and configuration, with `reused_from`; weights stay there."""
    result = read_result(source)
    assert result is not None
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "config.yaml", folder / "config.yaml")
    linked = replace(result, run_id=folder.name, study=study, folder=str(folder), reused_from=str(source.resolve()))
    linked.write(folder)
    return linked


def forget_failure(folder: Path) -> None:
    """Let a failed run be tried again."""
    (folder / FILE).unlink(missing_ok=True)
