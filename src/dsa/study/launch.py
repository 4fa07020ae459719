"""Hydra's launchers as something that trains runs."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dsa.mistakes import sentence
from dsa.signals import behind
from dsa.study.composer import Load
from dsa.study.drive import Dispatch
from dsa.study.plan import PlannedRun
from dsa.study.ray_queue import RayQueue
from dsa.study.submitit_queue import SubmititQueue
from dsa.study.sweep import sweep
from dsa.study.tell import command_line


def run_sweep(cfg: DictConfig, arguments: list[str], load: Load, launcher: Any) -> None:
    """Carry a study through on a launcher, and leave the process with the study's exit status.

    Raises:
        SystemExit: always; 0 all done, 1 something failed, 2 the study cannot be planned, 130 or 143 stopped.
    """
    scheduler = getattr(launcher, "_EXECUTOR", None)
    queue = None if scheduler is None else SubmititQueue(launcher)
    try:
        status = sweep(
            cfg,
            arguments,
            load,
            through(launcher, queue),
            workers(cfg),
            queue=queue if scheduler == "slurm" else None,
        )
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, SystemExit) as error:
        print(f"stopped; to go on: {command_line()}", file=sys.stderr)
        status = 128 + (behind(error) or signal.SIGINT)
    sys.exit(status)


def workers(cfg: DictConfig) -> int:
    """Runs that a launcher trains at once, for the estimate."""
    kind = str(cfg.hydra.runtime.choices.get("hydra/launcher"))
    return 1 if kind == "basic" else os.cpu_count() or 1


def through(launcher: Any, queue: SubmititQueue | None) -> Dispatch:
    """Train runs on a launcher: through its scheduler's jobs where it has one, else by Hydra's launch()."""
    on_ray = RayQueue(launcher) if "cluster" not in getattr(launcher, "ray_cfg", {"cluster": None}) else None

    def dispatch(runs: list[PlannedRun], files: list[Path]) -> list[str | None]:
        if queue is not None:
            return queue.train(files)
        if on_ray is not None:
            return on_ray.train(files)
        jobs = [[f"planned={quoted(file)}"] for file in files]
        return [reason(answer) for answer in launcher.launch(jobs, initial_job_idx=0)]

    return dispatch


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def reason(answer: Any) -> str | None:
    """Why a job failed; None if it did not."""
    value = answer._return_value  # return_value would raise the job's error
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value
