"""Runs that wait in a scheduler, known by its id: they are not submitted twice."""

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import psutil

from dsa.study.claim import read, write

QUEUED = "queued.json"
POLL = 1.0  # seconds between questions whether jobs are done
OF_EXECUTOR = ("max_num_timeout", "submitit_folder")  # settings that the executor takes when it is made


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
    """Whether a job is waiting or running, by what the scheduler says."""
    if note["cluster"] == "local":
        return psutil.pid_exists(int(note["job_id"]))
    if importlib.util.find_spec("submitit") is None:
        return False
    import submitit

    job: Any = submitit.SlurmJob(folder=note["log"], job_id=note["job_id"])
    return not job.done(force_check=True)


class Queue:
    """The executor of Hydra's submitit launcher, whose own launch() waits and keeps the ids to itself.

    Args:
        launcher: of hydra/launcher=submitit_slurm or submitit_local.
    """

    def __init__(self, launcher: Any) -> None:
        self.launcher, self.cluster = launcher, launcher._EXECUTOR

    def executor(self, after: list[str]) -> Any:
        """An executor with the launcher's settings, for jobs that begin when those before have ended."""
        import submitit

        settings = dict(self.launcher.params)
        made = {f"{self.cluster}_{k}": settings[k] for k in OF_EXECUTOR[:1] if k in settings}
        executor = submitit.AutoExecutor(cluster=self.cluster, folder=settings["submitit_folder"], **made)
        shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
        shared |= {"stderr_to_stdout"}
        own = {k: v for k, v in settings.items() if k not in OF_EXECUTOR}
        executor.update_parameters(**{k if k in shared else f"{self.cluster}_{k}": v for k, v in own.items()})
        if after and self.cluster == "slurm":
            more = dict(settings.get("additional_parameters") or {})
            executor.update_parameters(slurm_additional_parameters=more | {"dependency": f"afterany:{':'.join(after)}"})
        return executor

    def submit(self, jobs: list[list[str]], folders: list[Path], after: list[str]) -> list[Any]:
        """Hand runs to the scheduler and note their ids in their folders."""
        from hydra.core.singleton import Singleton

        state = Singleton.get_state()
        rows = [(job, "hydra.sweep.dir", i, f"run_{i}", state) for i, job in enumerate(jobs)]
        handed: list[Any] = self.executor(after).map_array(self.launcher, *zip(*rows, strict=True))
        for job, folder in zip(handed, folders, strict=True):
            write(folder / QUEUED, {"cluster": self.cluster, "job_id": job.job_id, "log": str(job.paths.folder)})
        return handed

    def train(self, jobs: list[list[str]], folders: list[Path]) -> list[str | None]:
        """Submit runs and wait for them; on this machine no more at once than it has cores for."""
        each = self.launcher.params.get("cpus_per_task") or 1
        most = max(1, (os.cpu_count() or 1) // each) if self.cluster == "local" else len(jobs)
        waiting = list(range(len(jobs)))
        active: dict[int, Any] = {}
        answers: list[str | None] = [None] * len(jobs)
        while waiting or active:
            now, waiting = waiting[: most - len(active)], waiting[most - len(active) :]
            if now:
                handed = self.submit([jobs[i] for i in now], [folders[i] for i in now], [])
                active |= dict(zip(now, handed, strict=True))
            for i in [i for i, job in active.items() if job.done()]:
                answers[i] = answer_of(active.pop(i))
            time.sleep(POLL)
        return answers


def answer_of(job: Any) -> str | None:
    """Why a job failed; None if it did not, or died without saying."""
    try:
        value = job.results()[0]._return_value
    except Exception:  # the process died: the run folder will say how far it came
        return None
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else value
