"""One run: stages, losses, measurements, result."""

from dsa.training.result import RunResult
from dsa.training.run import RunFailed, train

__all__ = ["RunFailed", "RunResult", "train"]
