"""One run: what it needs is trained, measured and put together."""

from dsa.artifacts.results import RunResult
from dsa.training.run import RunFailed, train

__all__ = ["RunFailed", "RunResult", "train"]
