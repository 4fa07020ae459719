"""The libraries that read pretrained models: an extra, and imported only where such a model is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

NEEDED = 'model: a pretrained model needs {0}, which is not installed. Install it by: pip install "dsa[pretrained]"'


def transformers() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed.
    """
    return library("transformers")


def gguf_reader() -> Any:
    """What transformers reads GGUF files by.

    Raises:
        ValueError: it is not installed.
    """
    library("accelerate")
    return library("gguf")


@contextmanager
def quiet(library: Any) -> Iterator[None]:
    """No progress bars of transformers, which a run has no place for."""
    bars = library.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def library(name: str) -> Any:
    """A library by name.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ValueError(NEEDED.format(name)) from None
