"""Patterns by name, as the settings of a pattern that is made of others give them."""

from collections.abc import Mapping

from dsa.ops import by_group
from dsa.patterns.base import Pattern


def check_named(patterns: Mapping[str, Pattern]) -> dict[str, Pattern]:
    """The patterns, each of which is for all heads.

    Raises:
        ValueError: there is none, or one has zones of its own for groups of heads.
    """
    if not patterns:
        raise ValueError("pattern.patterns = {}: give at least one pattern by a name of your own.")
    for name, pattern in patterns.items():
        groups = len(by_group(pattern.zones()))
        if groups > 1:
            raise ValueError(
                f"pattern.patterns.{name}: it has zones for {groups} groups of heads; give one for all heads."
            )
    return dict(patterns)
