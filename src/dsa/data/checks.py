"""One sentence for an impossible number: which setting, what it got, what is allowed."""


def at_least(smallest: int, value: int, setting: str, why: str) -> int:
    """Returns `value`. Raises ValueError unless it is a whole number from `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ValueError(f"{setting} = {value}: {why} Give a whole number from {smallest}.")
    return value


def null_or_positive(value: int | None, setting: str, why: str) -> int | None:
    """Returns `value`, which may be None. Raises ValueError for any other that is no whole number from 1."""
    return None if value is None else at_least(1, value, setting, why)
