"""Files that are there whole or not at all, also after a kill or a power cut."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; what is written there is flushed to disk, then takes the file's place.

    If the writer fails, the file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside it; what is written there takes its name, which nothing may have yet.

    If the writer fails, nothing is left.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write text (UTF-8) whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, strict: bool = False) -> None:
    """Write JSON whole or not at all.

    Args:
        strict: refuse infinite numbers and NaN, which only Python reads.

    Raises:
        ValueError: strict, and there is such a number.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=not strict) + "\n")


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of a file they were writing; for the one process that may write it now."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink()
