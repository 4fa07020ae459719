"""Hydra's launchers as something that does jobs."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsa.cli_errors import sentence
from dsa.signals import behind
from dsa.study.composer import Load
from dsa.study.drive import Dispatch
from dsa.study.jobs import Job
from dsa.study.messages import command_line
from dsa.study.sweep import sweep
from dsa.study.workers.failures import Failure
from dsa.study.workers.ray_queue import RayQueue
from dsa.study.workers.submitit_queue import SubmititQueue
from dsa.training.errors import category, disk_is_full, reason


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
            threads=torch.get_num_threads() if here(cfg) else None,
        )
    except (ValueError, OSError, HydraException, OmegaConfBaseException) as error:
        full = disk_is_full(error)
        print(f"error: {reason(error) if full else sentence(error)}", file=sys.stderr)
        status = 1 if full else 2
    except (KeyboardInterrupt, SystemExit) as error:
        print(f"stopped; to go on: {command_line()}", file=sys.stderr)
        status = 128 + (behind(error) or signal.SIGINT)
    sys.exit(status)


def workers(cfg: DictConfig) -> int:
    """Jobs that a launcher does at once: as many as it is told to, else as there are cores for."""
    if here(cfg):
        return 1
    given = OmegaConf.select(cfg, "hydra.launcher.n_jobs")
    each = OmegaConf.select(cfg, "hydra.launcher.cpus_per_task") or 1
    return given if given is not None and given > 0 else max(1, (os.cpu_count() or 1) // each)


def here(cfg: DictConfig) -> bool:
    """Whether jobs are done in this very process, one after the other."""
    return str(cfg.hydra.runtime.choices.get("hydra/launcher")) == "basic"


def through(launcher: Any, queue: SubmititQueue | None) -> Dispatch:
    """Do jobs on a launcher: through its scheduler's jobs where it has one, else by Hydra's launch()."""
    on_ray = RayQueue(launcher) if "cluster" not in getattr(launcher, "ray_cfg", {"cluster": None}) else None

    def dispatch(jobs: list[Job], files: list[Path]) -> list[Failure | None]:
        if queue is not None:
            return queue.do(files)
        if on_ray is not None:
            return on_ray.do(files)
        overrides = [[f"planned={quoted(file)}"] for file in files]
        return [failure(answer) for answer in launcher.launch(overrides, initial_job_idx=0)]

    return dispatch


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def failure(answer: Any) -> Failure | None:
    """Why a job failed; None if it did not."""
    value = answer._return_value  # return_value would raise the job's error
    if isinstance(value, BaseException):
        return Failure(category(value), f"{type(value).__name__}: {reason(value)}")
    return value
