"""What is handed to a scheduler: calls that need nothing but files, so that a queued job does what was planned."""

import logging
from pathlib import Path
from typing import Any

from dsa.study.job import work


class Task:
    """A call that a preempted job makes again from the start, where its run goes on from the last checkpoint."""

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit puts in the place of a job that SLURM stops and starts again."""
        from submitit.helpers import DelayedSubmission

        call: Any = self
        return DelayedSubmission(call, *arguments)


class TrainTask(Task):
    """Train a planned run."""

    def __call__(self, file: str) -> str | None:
        logging.getLogger("dsa").setLevel(logging.INFO)  # as Hydra does in a sweep; it goes to the run's log
        return work(Path(file))


class ConcludeTask(Task):
    """End studies whose runs have all been tried."""

    def __call__(self, folders: list[str], timing: bool, stale: str, allow_targets: list[str]) -> bool:
        from dsa.study.conclude import conclude

        return all([conclude(Path(folder), timing, stale, allow_targets) for folder in folders])
