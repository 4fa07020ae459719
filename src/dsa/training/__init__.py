"""One run: what it needs is trained, measured and put together."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsa.artifacts.results import RunResult
    from dsa.training.errors import RunFailed, RunRefused
    from dsa.training.execute import train

__all__ = ["RunFailed", "RunRefused", "RunResult", "train"]

HOMES = {
    "RunResult": "dsa.artifacts.results",
    "RunFailed": "dsa.training.errors",
    "RunRefused": "dsa.training.errors",
    "train": "dsa.training.execute",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a plan needs objectives and loggers, and no Lightning."""
    if name not in HOMES:
        raise AttributeError(f"module 'dsa.training' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
