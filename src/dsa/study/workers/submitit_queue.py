"""Jobs through submitit, on SLURM or on this machine, with the settings of Hydra's launcher.

The launcher's own launch() waits, keeps the ids to itself, and has each worker compose the yamls anew.
"""

import os
import time
from pathlib import Path
from typing import Any

import psutil

from dsa.artifacts.atomic import write_json
from dsa.study.workers.claim import this_process
from dsa.study.workers.failures import Failure
from dsa.study.workers.queue import QUEUED, alive, squeue
from dsa.study.workers.task import ConcludeTask, JobTask
from dsa.training.errors import category

POLL = 1.0  # seconds between questions whether jobs are done
MOST = 1000  # jobs of one array; SLURM's own limit is 1001 where nobody changed it
OF_EXECUTOR = ("max_num_timeout", "submitit_folder")  # settings that the executor takes when it is made
SHARED = {  # settings that submitit knows for every cluster; the others get the cluster's name in front
    "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout",
}  # fmt: skip
ONE_PROCESS = {"tasks_per_node": 1, "nodes": 1}


class SubmititQueue:
    """Submits jobs, notes their ids in their folders, and waits for them if asked to.

    Args:
        launcher: of hydra/launcher=submitit_slurm or submitit_local.
    """

    def __init__(self, launcher: Any) -> None:
        self.settings, self.cluster = dict(launcher.params), str(launcher._EXECUTOR)

    def executor(self, after: list[str], **other: Any) -> Any:
        """An executor with the launcher's settings, for jobs that begin when those before have ended."""
        import submitit

        settings = self.settings | other
        made = {f"{self.cluster}_{k}": settings[k] for k in OF_EXECUTOR[:1] if k in settings}
        executor = submitit.AutoExecutor(cluster=self.cluster, folder=settings["submitit_folder"], **made)
        own = {k: v for k, v in settings.items() if k not in OF_EXECUTOR}
        executor.update_parameters(**{k if k in SHARED else f"{self.cluster}_{k}": v for k, v in own.items()})
        if after and self.cluster == "slurm":
            arrays = dict.fromkeys(job_id.split("_")[0] for job_id in after)
            more = dict(settings.get("additional_parameters") or {})
            more["dependency"] = f"afterany:{':'.join(arrays)}"
            executor.update_parameters(slurm_additional_parameters=more)
        return executor

    def submit(self, files: list[Path], after: list[str]) -> list[Any]:
        """Hand jobs to the scheduler and note their ids in their folders."""
        handed: list[Any] = []
        for begin in range(0, len(files), MOST):
            part = files[begin : begin + MOST]
            jobs = self.executor(after).map_array(JobTask(), [str(file) for file in part])
            for job, file in zip(jobs, part, strict=True):
                self.note(job, file.parent)
            handed += jobs
        return handed

    def submit_conclusion(self, folders: list[Path], timing: bool, admitted: list[str], after: list[str]) -> str:
        """Hand over the end of studies, to begin when their jobs have ended; the job's id."""
        paths = [str(folder.resolve()) for folder in folders]
        job = self.executor(after, **ONE_PROCESS).submit(ConcludeTask(), paths, timing, admitted)
        for folder in folders:
            self.note(job, folder)
        return str(job.job_id)

    def note(self, job: Any, folder: Path) -> None:
        note = {"cluster": self.cluster, "job_id": job.job_id, "log": str(job.paths.folder)}
        if self.cluster == "local":
            process = psutil.Process(int(job.job_id))
            note |= this_process() | {"pid": process.pid, "process_started": process.create_time()}
        write_json(folder / QUEUED, note)
        squeue.forget()

    def do(self, files: list[Path]) -> list[Failure | None]:
        """Submit jobs and wait for them; on this machine no more at once than it has cores for."""
        each = self.settings.get("cpus_per_task") or 1
        most = max(1, (os.cpu_count() or 1) // each) if self.cluster == "local" else len(files)
        waiting = list(range(len(files)))
        active: dict[int, Any] = {}
        answers: list[Failure | None] = [None] * len(files)
        while waiting or active:
            now, waiting = waiting[: most - len(active)], waiting[most - len(active) :]
            if now:
                active |= dict(zip(now, self.submit([files[i] for i in now], []), strict=True))
            for i in [i for i, job in active.items() if self.over(job)]:
                answers[i] = answer_of(active.pop(i))
            time.sleep(POLL)
        return answers

    def over(self, job: Any) -> bool:
        """Whether a job has left its answer, or left without one."""
        if self.cluster == "local":
            return bool(job.done())
        return job.paths.result_pickle.exists() or not alive({"cluster": "slurm", "job_id": job.job_id})


def answer_of(job: Any) -> Failure | None:
    """Why a job failed; None if it did not, or died without saying."""
    if not job.paths.result_pickle.exists():  # the folders will say how far it came
        return None
    error = job.exception()
    if error is None:
        return job.results()[0]
    return Failure(category(error), f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}")
