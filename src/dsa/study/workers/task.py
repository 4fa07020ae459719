"""What is handed to a scheduler: calls that need nothing but files, so that a queued job does what was planned."""

import logging
from pathlib import Path
from typing import Any

from dsa.study.workers.failures import Failure


class Task:
    """A call that a preempted job makes again from the start, where its job goes on from the last checkpoint."""

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit puts in the place of a job that SLURM stops and starts again."""
        from submitit.helpers import DelayedSubmission

        call: Any = self
        return DelayedSubmission(call, *arguments)


class JobTask(Task):
    """Do a planned job."""

    def __call__(self, file: str) -> Failure | None:
        from dsa.study.workers.job import work  # late: whoever hands it over trains nothing

        logging.getLogger("dsa").setLevel(logging.INFO)  # as Hydra does in a sweep; it goes to the job's log
        return work(Path(file))


class ConcludeTask(Task):
    """End studies whose jobs have all been tried."""

    def __call__(self, folders: list[str], timing: bool, admitted: list[str]) -> bool:
        from dsa.study.conclude import conclude

        return all([conclude(Path(folder), timing, admitted) for folder in folders])
