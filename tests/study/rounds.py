"""A round of timing that a fresh process takes without the imports of one that trains."""

import os
from collections.abc import Iterable
from typing import Any


def which_process(folders: Iterable[str], admitted: object, threads: int) -> tuple[dict[str, Any], float]:
    """A round that says which process took it."""
    return {label: {"pid": os.getpid(), "threads": threads} for label in folders}, 0.05
