"""What a worker does: train one planned run, exactly as planned, if nobody else does."""

import functools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dsa.build import build_data
from dsa.config import digest, resolved
from dsa.data import DataModule
from dsa.study.claim import CLAIM, DEATHS, claimed, read
from dsa.study.plan import PlannedRun
from dsa.study.store import Finished, sound, state, trained_elsewhere
from dsa.training.plan import Plan
from dsa.training.run import RunFailed, keep_failure, run
from dsa.training.world import first_process

PLANNED, STOP, LOG = "planned.yaml", ".stopped", "run.log"


class TimedOut(Exception):
    """A run took longer than the study allows."""


def write_job(
    planned: PlannedRun, timeout_minutes: float | None, stop: Path | None, group: str, shared: bool = False
) -> Path:
    """Put the planned run into its folder; returns the file a worker reads.

    Args:
        stop: a marker that a failed run leaves to keep the others from starting; None lets them start.
        group: of the run on a dashboard.
        shared: leave the run to another study that trains it, or has, when its turn comes; somebody waits for that.
            Not if the run has several processes, which would have to agree on it.
    """
    planned.folder.mkdir(parents=True, exist_ok=True)
    path = planned.folder / PLANNED
    content = {
        "kind": planned.kind,
        "shared": shared and planned.cfg.trainer.devices == 1,
        "timeout_minutes": timeout_minutes,
        "stop": None if stop is None else str(stop.resolve()),
        "config": resolved(planned.cfg)
        | {"label": planned.label if planned.role != "base" else "base", "group": group},
    }
    temporary = path.with_suffix(".writing")
    OmegaConf.save(OmegaConf.create(content), temporary)
    temporary.replace(path)
    return path.resolve()


def work(path: Path) -> str | None:
    """Train a planned run; the reason if it failed, and its folder tells it too unless that could not be written.

    Nothing happens if the run is done, somebody works on it, in this study or another, or the study was stopped.
    """
    job: Any = OmegaConf.load(path)
    cfg, stop = job.config, None if job.stop is None else Path(job.stop)
    if (stop is not None and stop.exists()) or (job.shared and with_others(path.parent, job.kind, cfg)):
        return None
    if not first_process():  # of a run on several devices: the first one holds the claim and writes
        return attempt(cfg, job.kind, job.timeout_minutes)
    with claimed(path.parent) as mine:
        if not mine or state_before(path.parent, cfg) == "done":
            return None
        with terminal_to(path.parent / LOG):
            reason = crashing(cfg, path.parent) or attempt(cfg, job.kind, job.timeout_minutes)
    if reason is not None and stop is not None:
        stop.touch()
    return reason


def with_others(folder: Path, kind: str, cfg: DictConfig) -> bool:
    """Whether another study trains this very run now, or has finished it since the runs were handed out."""
    if trained_elsewhere(folder):
        return True
    config_hash = folder.name.rsplit("-", 1)[-1]
    known = Finished(folder.parent.parent, cfg.allow_targets)
    return kind == "run" and known.elsewhere(config_hash, folder, cfg.stale) is not None


def crashing(cfg: DictConfig, folder: Path) -> str | None:
    """The reason to leave a run alone, then in its folder: it took every process along that tried it."""
    deaths = read(folder / CLAIM).get("deaths", 0)
    if deaths < DEATHS:
        return None
    reason = f"its process died {deaths} times without getting any further: killed from outside, or it crashed."
    keep_failure(cfg, Plan(cfg, data_of(cfg)), "killed", reason, "")
    return reason


def state_before(folder: Path, cfg: DictConfig) -> str:
    """The run's state apart from our own claim."""
    result = sound(folder)
    return "done" if result is not None and state(folder, cfg.stale, cfg.allow_targets) in ("done",) else "open"


def attempt(cfg: DictConfig, kind: str, timeout_minutes: float | None) -> str | None:
    """Train; the reason if that failed, which is then in the run's folder."""
    try:
        with time_limit(timeout_minutes):
            run(Plan(cfg, data_of(cfg)), kind)
    except (RunFailed, ValueError, OSError, TimedOut) as error:
        plan = Plan(cfg, data_of(cfg))
        late = timed_out(error)
        if late is not None:
            keep_failure(cfg, plan, "timeout", str(late), "")
            return str(late)
        result = sound(plan.folder)
        if result is None or result.status == "finished":
            keep_failure(cfg, plan, "dense base", f"a dense run that it stands on failed: {error}", "")
        return str(error)
    return None


def timed_out(error: BaseException | None) -> TimedOut | None:
    """The time limit behind an error, if that was its cause."""
    while error is not None:
        if isinstance(error, TimedOut):
            return error
        error = error.__cause__ or error.__context__
    return None


@functools.lru_cache(maxsize=4)
def cached_data(key: str, content: "Hashable") -> DataModule:
    return build_data(content.cfg)


class Hashable:
    """A configuration that counts as equal to any other: the cache goes by the key beside it."""

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashable)


def data_of(cfg: DictConfig) -> DataModule:
    """The data of a configuration, prepared once for the runs of one process that follow each other."""
    return cached_data(digest(resolved(cfg)["data"]), Hashable(cfg))


@contextmanager
def terminal_to(path: Path) -> Iterator[None]:
    """What a run prints goes to its log."""
    with path.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        yield


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Raise TimedOut after some minutes; in a thread other than the first nothing can, and nothing does."""
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimedOut(f"timeout_minutes = {minutes:g}: the run took longer.")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
