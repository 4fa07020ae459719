"""Checks of single settings: each returns the value, or says which setting, what it got and what is allowed."""

import itertools
import math
from typing import Any


def positive(value: Any, name: str) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} = {value}: give a whole number from 1.")
    return value


def at_least(value: Any, least: int, name: str, why: str = "") -> int:
    """A whole number from `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} = {value}: give a whole number from {least}{f' ({why})' if why else ''}.")
    return value


def sharing(value: Any, name: str) -> int | tuple[int, ...]:
    """How many layers in a row share an indexer; or the layers that have one, the first of all among them."""
    if type(value) is int and value >= 1:
        return value
    listed = isinstance(value, list | tuple) and all(type(one) is int for one in value)
    if listed and value[:1] in ([0], (0,)) and all(a < b for a, b in itertools.pairwise(value)):
        return tuple(value)
    raise ValueError(
        f"{name} = {value}: give a whole number from 1, or whole numbers that begin with 0 and rise, as [0,3]."
    )


def null_or_positive(value: Any, name: str, why: str) -> int | None:
    """None, or a whole number from 1."""
    return None if value is None else at_least(value, 1, name, why)


def even(value: Any, name: str, why: str) -> int:
    """An even number from 0."""
    if at_least(value, 0, name) % 2:
        raise ValueError(f"{name} = {value}: {why}; give an even number.")
    return value


def above(value: Any, bound: float, name: str) -> float:
    """A number above `bound`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > bound:
        raise ValueError(f"{name} = {value}: give a number above {bound}.")
    return float(value)


def share(value: Any, name: str) -> float:
    """A share above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} = {value}: give a share above 0 and at most 1.")
    return float(value)


def flag(value: Any, name: str) -> bool:
    """true or false, and nothing that merely counts as one of them."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} = {value}: give true or false.")
    return value


def one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    """One of a few words."""
    if value not in allowed:
        raise ValueError(f"{name} = {value}: give {', '.join(allowed[:-1])} or {allowed[-1]}.")
    return str(value)


def rate(value: Any, name: str) -> float:
    """A learning rate: a finite number from 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} = {value}: a learning rate must be a number from 0.")
    return float(value)


def above_zero(value: Any, name: str, most: float = math.inf) -> float:
    """A finite number above 0.

    Args:
        most: the largest that is allowed.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= most:
        up_to = "" if most == math.inf else f", at most {most:g}"
        raise ValueError(f"{name} = {value}: give a number above 0{up_to}.")
    return float(value)


def text(value: Any, name: str) -> str:
    """Text; a number is taken as it is written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise ValueError(f"{name} = {value}: give text.")
    return str(value)


def null_or_text(value: Any, name: str) -> str | None:
    """None, or text."""
    return None if value is None else text(value, name)


def texts(value: Any, name: str) -> tuple[str, ...]:
    """A list of text."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} = {value}: give a list, as [a,b] or [].")
    return tuple(text(one, name) for one in value)


def folder_name(value: Any, name: str) -> str:
    """The name of a folder, which thereby lies in the one where it belongs and nowhere else."""
    if str(value) in ("", ".", "..") or set(str(value)) & set("/\\\0"):
        raise ValueError(f"{name} = {value}: it names one folder; give it without / and \\, and not as . or ...")
    return text(value, name)
