"""Runs that wait in a scheduler, known by its id: they are not submitted twice."""

import importlib.util
from pathlib import Path
from typing import Any

from dsa.study.claim import read, write

QUEUED = "queued.json"
WAITING = ("PENDING", "RUNNING", "CONFIGURING", "REQUEUED", "SUSPENDED", "COMPLETING", "UNKNOWN")


def submitted(folder: Path, cluster: str, job_id: str, log: Path) -> None:
    """Note in a run folder which job will train it."""
    write(folder / QUEUED, {"cluster": cluster, "job_id": job_id, "log": str(log)})


def queued(folder: Path) -> bool:
    """Whether the scheduler still has this run; a job that is gone is forgotten."""
    note = read(folder / QUEUED)
    if not note:
        return False
    if alive(note):
        return True
    (folder / QUEUED).unlink(missing_ok=True)
    return False


def alive(note: dict[str, Any]) -> bool:
    """Whether the scheduler says that a job is waiting or running."""
    if importlib.util.find_spec("submitit") is None:
        return False
    import submitit

    kind = submitit.SlurmJob if note["cluster"] == "slurm" else submitit.LocalJob
    job: Any = kind(folder=note["log"], job_id=note["job_id"])
    return not job.done(force_check=True)


def submit(launcher: Any, jobs: list[list[str]], folders: list[Path], most: int | None) -> list[Any]:
    """Submit runs to the executor of Hydra's submitit launcher, whose own launch() would wait and keep the ids.

    Args:
        most: jobs at once; None leaves it to the scheduler.
    """
    import submitit
    from hydra.core.singleton import Singleton

    executor = executor_of(launcher)
    parameters = [(job, "hydra.sweep.dir", i, f"run_{i}", Singleton.get_state()) for i, job in enumerate(jobs)]
    if most is not None:
        executor.update_parameters(slurm_array_parallelism=most)
    handed: list[Any] = executor.map_array(launcher, *zip(*parameters, strict=True))
    for job, folder in zip(handed, folders, strict=True):
        submitted(folder, launcher._EXECUTOR, job.job_id, Path(job.paths.folder))
    assert all(isinstance(job, submitit.Job) for job in handed)
    return handed
