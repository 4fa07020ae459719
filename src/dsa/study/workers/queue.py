"""Jobs that wait in a scheduler, known by its id: they are not submitted twice."""

import getpass
import subprocess
import time
from pathlib import Path
from typing import Any

from dsa.study.workers.claim import dead_here, read

QUEUED = "queued.json"


class Squeue:
    """The jobs of this user that SLURM still has; asked at most every few seconds, for all folders at once."""

    AGE = 5.0  # seconds for which an answer serves

    def __init__(self) -> None:
        self.ids: set[str] | None = None
        self.asked = float("-inf")

    def has(self, job_id: str) -> bool:
        """Whether a job waits or runs; without an answer it counts as waiting, so that nothing is submitted twice."""
        if time.monotonic() - self.asked > self.AGE:
            self.ids, self.asked = self.ask(), time.monotonic()
        return self.ids is None or job_id in self.ids

    def ask(self) -> set[str] | None:
        """One line a job, array elements apart; None where squeue is not there or does not answer."""
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return set(done.stdout.split()) if done.returncode == 0 else None

    def forget(self) -> None:
        """Ask again at the next question: something was just submitted."""
        self.asked = float("-inf")


squeue = Squeue()


def queued(folder: Path) -> bool:
    """Whether a scheduler still has the job noted in a folder; a job that is gone is forgotten."""
    note = read(folder / QUEUED)
    if not note:
        return False
    if alive(note):
        return True
    (folder / QUEUED).unlink(missing_ok=True)
    return False


def alive(note: dict[str, Any]) -> bool:
    """Whether a job is waiting or running: as SLURM says; elsewhere while the process that it hangs on lives."""
    return squeue.has(note["job_id"]) if note["cluster"] == "slurm" else not dead_here(note)
