"""Hydra's launchers as something that trains runs."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig

from dsa.study.composer import Load
from dsa.study.drive import Dispatch, Submit
from dsa.study.plan import PlannedRun
from dsa.study.queue import Queue
from dsa.study.sweep import sweep


def run_sweep(cfg: DictConfig, arguments: list[str], load: Load, launcher: Any) -> None:
    """Carry a study through on a launcher, and leave the process with the study's exit status.

    Raises:
        SystemExit: always; 0 all done, 1 something failed, 2 the study cannot be planned, 130 interrupted.
    """
    again = "stopped: the same command goes on where this one was"
    try:
        scheduler = getattr(launcher, "_EXECUTOR", None)
        status = sweep(
            cfg,
            arguments,
            load,
            through(launcher),
            workers(cfg),
            submit=by_scheduler(launcher) if scheduler == "slurm" else None,
            one_process=scheduler is None,
        )
    except (ValueError, OSError, HydraException) as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, SystemExit):
        print(again, file=sys.stderr)
        status = 130
    sys.exit(status)


def workers(cfg: DictConfig) -> int:
    """Runs that a launcher trains at once, for the estimate."""
    kind = str(cfg.hydra.runtime.choices.get("hydra/launcher"))
    return 1 if kind == "basic" else os.cpu_count() or 1


def through(launcher: Any) -> Dispatch:
    """Train runs by Hydra's launch(): each is given the file with its planned configuration."""

    def dispatch(runs: list[PlannedRun], files: list[Path]) -> list[str | None]:
        jobs = [[f"planned={quoted(file)}"] for file in files]
        if hasattr(launcher, "_EXECUTOR"):
            return Queue(launcher).train(jobs, [run.folder for run in runs])
        return [reason(answer) for answer in launcher.launch(jobs, initial_job_idx=0)]

    return dispatch


def by_scheduler(launcher: Any) -> Submit:
    """Hand runs to SLURM and return their job ids; nothing runs after them."""

    def submit(runs: list[PlannedRun], files: list[Path], after: list[str]) -> list[str]:
        jobs = [[f"planned={quoted(file)}"] for file in files]
        return [job.job_id for job in Queue(launcher).submit(jobs, [run.folder for run in runs], after)]

    return submit


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def reason(answer: Any) -> str | None:
    """Why a job failed; None if it did not."""
    value = answer._return_value  # return_value would raise the job's error
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value
