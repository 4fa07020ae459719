"""What conditions are called: by their options and the values that vary, a text by its own name."""

from collections.abc import Callable, Iterable
from typing import Any

from dsa.data import HubCorpus, TextFiles
from dsa.share import short

TEXTS: dict[str, Callable[[Any], str | None]] = {
    "data.path": lambda value: TextFiles.called({"path": value}),
    "data.name": lambda value: HubCorpus.called({"name": value}),
}
"""Settings that say which text is read, and what that is called."""


def named(key: str, value: Any, among: Iterable[Any]) -> str | None:
    """What a text is called in a label; None for any other setting, and where the name would not tell it from others.

    Args:
        among: all values that the setting has in the study.
    """
    if key not in TEXTS:
        return None
    names = {one: TEXTS[key](one) for one in {value, *among}}
    return names[value] if len(set(names.values())) == len(names) else None


def valued(key: str, value: Any, among: Iterable[Any]) -> str:
    """A value in a label: behind the last part of its setting's name, or a text's own name alone."""
    text = ".".join(map(str, value)) if isinstance(value, list) else short(value)
    return named(key, value, among) or f"{key.split('.')[-1]}{text}"
