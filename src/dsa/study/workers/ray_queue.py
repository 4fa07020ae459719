"""Jobs as tasks of Ray, with the settings of Hydra's launcher, which keeps the tasks' ids to itself."""

from pathlib import Path
from typing import Any

from dsa.artifacts.atomic import write_json
from dsa.study.workers.claim import this_process
from dsa.study.workers.failures import Failure
from dsa.study.workers.queue import QUEUED
from dsa.study.workers.task import JobTask
from dsa.training.errors import category

STORE = 78643200  # bytes, Ray's least: what tasks answer is a line at most


class RayQueue:
    """Does jobs as Ray's tasks and notes each in its folder. Tasks live no longer than the sweep that made them.

    Args:
        launcher: of hydra/launcher=ray.
    """

    def __init__(self, launcher: Any) -> None:
        self.settings = launcher.ray_cfg

    def do(self, files: list[Path]) -> list[Failure | None]:
        """Submit jobs and wait for them. A task whose worker dies is not repeated by Ray: the sweep sees to that."""
        import ray
        from hydra_plugins.hydra_ray_launcher._launcher_util import start_ray
        from omegaconf import OmegaConf

        self.settings.init.setdefault("object_store_memory", STORE)
        start_ray(self.settings.init)
        options: Any = OmegaConf.to_container(self.settings.remote, resolve=True)
        task = ray.remote(**{"max_retries": 0} | options)(do)
        handed = [task.remote(str(file)) for file in files]
        for one, file in zip(handed, files, strict=True):
            write_json(file.parent / QUEUED, this_process() | {"cluster": "ray", "job_id": one.task_id().hex()})
        return [answer_of(one) for one in handed]


def do(file: str) -> Failure | None:
    """Do a planned job in a worker of Ray's."""
    return JobTask()(file)


def answer_of(task: Any) -> Failure | None:
    """Why a task failed; None if it did not, or its worker died without saying."""
    import ray

    try:
        return ray.get(task)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
        return None
    except ray.exceptions.RayTaskError as error:
        return Failure(category(error.cause), f"{type(error.cause).__name__}: {error.cause}")
