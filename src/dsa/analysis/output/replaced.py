"""Atomic writes as a call: dsa.artifacts.atomic.replacing for what fills a path by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsa.artifacts.atomic import replacing


def replaced(path: Path, fill: Callable[[Path], Any]) -> Path:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        fill(temporary)
    return path
