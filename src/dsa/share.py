"""Budgets as a share of the length: ${share:1/16,8} is seq_len / 16, at least 8."""

import functools
from fractions import Fraction
from typing import Any

from omegaconf import OmegaConf

from dsa import checks


def share(of: Any, at_least: int = 1, *, _root_: Any) -> int:
    """A share of seq_len, rounded [tokens].

    Args:
        of: the share, as 1/16 or 0.0625.

    Raises:
        ValueError: it is no number, or not above 0; or seq_len is no length.
    """
    try:
        portion = Fraction(str(of).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"${{share:{of}}}: give a share of seq_len as 1/16 or 0.0625.") from None
    if portion <= 0:
        raise ValueError(f"${{share:{of}}}: a share of seq_len is above 0.")
    return max(int(at_least), round(portion * checks.at_least(_root_.seq_len, 1, "seq_len", "in tokens")))


OmegaConf.register_new_resolver("share", share, replace=True)


def at_length(value: Any, seq_len: int) -> Any:
    """The value with its shares worked out; other values as they are."""
    return worked_out(value, seq_len) if isinstance(value, str) and "${share:" in value else value


@functools.cache
def worked_out(value: str, seq_len: int) -> Any:
    """The same few shares come back for every condition of a study."""
    return OmegaConf.to_container(OmegaConf.create({"seq_len": seq_len, "value": value}), resolve=True)["value"]  # type: ignore[index,call-overload]
