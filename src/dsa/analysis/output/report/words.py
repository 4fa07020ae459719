"""Names and lengths in a sentence."""

from collections.abc import Iterable

NAMED = 3  # conditions that a sentence names; of more it names one less and counts the rest


def at(lengths: Iterable[int]) -> str:
    return f"at {listed(sorted(set(lengths)))} tokens"


def listed(names: Iterable[object]) -> str:
    """a, b and c."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def names(labels: list[str]) -> str:
    """Conditions by name; of many, the first and how many more."""
    return listed(labels if len(labels) <= NAMED else [*labels[: NAMED - 1], f"{len(labels) - NAMED + 1} more"])


def is_or_are(labels: list[str]) -> str:
    return "is" if len(labels) == 1 else "are"
