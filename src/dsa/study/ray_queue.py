"""Runs as tasks of Ray, with the settings of Hydra's launcher, which keeps the tasks' ids to itself."""

from pathlib import Path
from typing import Any

from dsa.atomic import write_json
from dsa.study.claim import this_process
from dsa.study.queue import QUEUED
from dsa.study.task import TrainTask

STORE = 78643200  # bytes, Ray's least: what tasks answer is a line at most


class RayQueue:
    """Trains runs as Ray's tasks and notes each in its folder. Tasks live no longer than the sweep that made them.

    Args:
        launcher: of hydra/launcher=ray.
    """

    def __init__(self, launcher: Any) -> None:
        self.settings = launcher.ray_cfg

    def train(self, files: list[Path]) -> list[str | None]:
        """Submit runs and wait for them. A task whose worker dies is not repeated by Ray: the sweep sees to that."""
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray
        from omegaconf import OmegaConf

        self.settings.init.setdefault("object_store_memory", STORE)
        start_ray(self.settings.init)
        options: Any = OmegaConf.to_container(self.settings.remote, resolve=True)
        task = ray.remote(**{"max_retries": 0} | options)(train)
        handed = [task.remote(str(file)) for file in files]
        for one, file in zip(handed, files, strict=True):
            write_json(file.parent / QUEUED, this_process() | {"cluster": "ray", "job_id": one.task_id().hex()})
        return [answer_of(one) for one in handed]


def train(file: str) -> str | None:
    """Train a planned run in a worker of Ray's."""
    return TrainTask()(file)


def answer_of(task: Any) -> str | None:
    """Why a task failed; None if it did not, or its worker died without saying."""
    import ray

    try:
        return ray.get(task)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        return None
    except ray.exceptions.RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
