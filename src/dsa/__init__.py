"""DeepSeek sparse attention, measured: which indexer, pattern, selector and precision at which length."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsa.artifacts.frame import load_study
    from dsa.attachment import attach, attached, detach, save_indexers
    from dsa.build import build_model
    from dsa.indices import dump_indices, replay_indices
    from dsa.spec import compose
    from dsa.training.execute import train
    from dsa.training.load import load_run

__all__ = [
    "attach",
    "attached",
    "build_model",
    "compose",
    "detach",
    "dump_indices",
    "load_run",
    "load_study",
    "replay_indices",
    "save_indexers",
    "train",
]

HOMES = {
    "attach": "dsa.attachment",
    "attached": "dsa.attachment",
    "detach": "dsa.attachment",
    "save_indexers": "dsa.attachment",
    "build_model": "dsa.build",
    "compose": "dsa.spec",
    "dump_indices": "dsa.indices",
    "replay_indices": "dsa.indices",
    "load_run": "dsa.training.load",
    "load_study": "dsa.artifacts.frame",
    "train": "dsa.training.execute",
}


def __getattr__(name: str) -> Any:
    """Import on first use: reading a study's results needs no torch."""
    if name not in HOMES:
        raise AttributeError(f"module 'dsa' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
