"""Checks of single settings: each returns the value, or says which setting, what it got and what is allowed."""


def positive(value: int, name: str) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} = {value}: give a whole number from 1.")
    return value


def at_least(value: int, least: int, name: str, why: str = "") -> int:
    """A whole number from `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} = {value}: give a whole number from {least}{f' ({why})' if why else ''}.")
    return value


def null_or_positive(value: int | None, name: str, why: str) -> int | None:
    """None, or a whole number from 1."""
    return None if value is None else at_least(value, 1, name, why)


def even(value: int, name: str, why: str) -> int:
    """An even number from 0."""
    if at_least(value, 0, name) % 2:
        raise ValueError(f"{name} = {value}: {why}; give an even number.")
    return value


def share(value: float, name: str) -> float:
    """A share above 0 and at most 1."""
    if not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} = {value}: give a share above 0 and at most 1.")
    return float(value)


def folder_name(value: str, name: str) -> str:
    """The name of a folder, which thereby lies in the one where it belongs and nowhere else."""
    if str(value) in ("", ".", "..") or set(str(value)) & set("/\\\0"):
        raise ValueError(f"{name} = {value}: it names one folder; give it without / and \\, and not as . or ...")
    return str(value)
