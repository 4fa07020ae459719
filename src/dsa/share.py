"""Budgets in proportion: ${share:1/16,8} is seq_len / 16, at least 8; ${pairs:1/2} half a key for each pair."""

import functools
import re
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dsa import checks, targets

WRITTEN = re.compile(r"\$\{(share|pairs):\s*([^${}]*?)\s*\}")
"""A share, or keys for a pair, as it is written."""


def share(of: Any, at_least: int = 1, *, _root_: Any) -> int:
    """A share of seq_len, rounded [tokens].

    Args:
        of: the share, as 1/16 or 0.0625.

    Raises:
        ValueError: it is no number, or not above 0; or seq_len is no length.
    """
    portion = portion_of(of, f"${{share:{of}}}", "a share of seq_len", "1/16 or 0.0625")
    return max(int(at_least), round(portion * length_of(_root_)))


def pairs(of: Any, *, _root_: Any) -> int:
    """Keys in proportion to the pairs that a row asks for, rounded [tokens].

    Args:
        of: keys for each pair, as 1/2 or 2.

    Raises:
        ValueError: it is no number, or not above 0; the data ask for no pairs; or it is less than one key.
    """
    written = f"${{pairs:{of}}}"
    portion = portion_of(of, written, "keys for a pair", "1/2 or 2")
    count = pairs_of(_root_)
    if count is None:
        raise ValueError(
            f"{written}: rows of {_root_.data.source['_target_']} hold no pairs to recall; give a number of keys or "
            "${share:1/16}, or data=mqar, needle or induction."
        )
    if not (keys := round(portion * count)):
        raise ValueError(f"{written}: of {count} pair{'' if count == 1 else 's'} that is less than one key; give more.")
    return keys


OmegaConf.register_new_resolver("share", share, replace=True)
OmegaConf.register_new_resolver("pairs", pairs, replace=True)


def portion_of(of: Any, written: str, what: str, examples: str) -> Fraction:
    """The number that a share or a ratio is given as."""
    portion = fraction(of)
    if portion is None:
        raise ValueError(f"{written}: give {what} as {examples}.")
    if portion <= 0:
        raise ValueError(f"{written}: {what} is above 0.")
    return portion


def fraction(of: Any) -> Fraction | None:
    """A number written as 1/16 or 0.0625; None where it is none."""
    try:
        return Fraction(str(of).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        return None


def length_of(cfg: Any) -> int:
    """The length of a configuration's rows [tokens]."""
    return checks.at_least(cfg.seq_len, 1, "seq_len", "in tokens")


def pairs_of(cfg: DictConfig) -> int | None:
    """How many pairs a row of a configuration's data asks for; None where it asks for none.

    Raises:
        ValueError: the source is none that a configuration may name, or a setting of it is impossible.
    """
    node: Any = OmegaConf.to_container(cfg.data, resolve=True)
    source, admitted = node.get("source"), list(cfg.get("allow_targets") or [])
    try:
        targets.maker(source, "data.source", admitted)  # checked, and not made: a text would be read for it
        found = targets.slot_class(source, "data.source", admitted)
    except targets.TargetRefused as error:
        raise ValueError(str(error)) from None
    settings = {key: value for key, value in source.items() if key != "_target_"}
    count: int | None = found.pairs_at(settings, length_of(cfg))
    return count


def at_length(value: Any, seq_len: int) -> Any:
    """The value with its shares worked out; other values as they are."""
    return worked_out(value, seq_len) if isinstance(value, str) and "${share:" in value else value


@functools.cache
def worked_out(value: str, seq_len: int) -> Any:
    """The same few shares come back for every condition of a study."""
    return OmegaConf.to_container(OmegaConf.create({"seq_len": seq_len, "value": value}), resolve=True)["value"]  # type: ignore[index,call-overload]


def short(value: Any) -> Any:
    """A share, or keys for a pair, as labels have it (1/2pairs); other values as they are."""
    found = WRITTEN.fullmatch(value) if isinstance(value, str) else None
    return found[2] + found[1] if found else value


def keys_per_pair(value: Any) -> float | None:
    """The ratio of a budget that is written as keys for each pair; None for any other."""
    found = WRITTEN.fullmatch(value) if isinstance(value, str) else None
    portion = fraction(found[2]) if found and found[1] == "pairs" else None
    return None if portion is None else float(portion)
