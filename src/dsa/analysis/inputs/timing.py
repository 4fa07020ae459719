"""Times of conditions taken alone, in turns: timing.json, which a sweep leaves beside its runs.

One estimator for all that is said of them. A time is the median over turns, and how one stands to another is the ratio
of those medians, so that whoever divides the times shown gets the ratio shown; a turn that something else slowed down
moves neither. Turns pair the conditions, so the interval of a ratio goes from the least to the greatest ratio of a
turn. Whatever the distribution, that holds the median ratio with probability 1 - 2^(1 - turns), 94 % for five turns
and 97 % for six (order statistics; David & Nagaraja 2003, 7.1), and it always holds the ratio of the medians of the
same turns.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.artifacts.files import TIMING

TURNS = "medians, from the least turn to the greatest, each in a process of its own"
FRESH = 5  # processes that a time needs before anything is ranked by it
STALE = f"turns were not taken in at least {FRESH} fresh processes"


@dataclass(frozen=True)
class Ratio:
    """A time over another's.

    Args:
        value: ratio of the medians over turns.
        interval: least and greatest ratio of a turn; None for fewer than two turns that both have.
    """

    value: float
    interval: tuple[float, float] | None


def ratio(mine: pd.Series, theirs: pd.Series) -> Ratio | None:
    """How a time stands to another, both by turn [ms]; None without a turn of either.

    Medians are over all turns of each, the interval over those that both have.
    """
    if not len(mine) or not len(theirs):
        return None
    paired = (mine / theirs).dropna()
    interval = (float(paired.min()), float(paired.max())) if len(paired) > 1 else None
    return Ratio(float(mine.median() / theirs.median()), interval)


def in_fresh_processes(record: dict[str, Any], label: str, seq_len: int) -> bool:
    """Whether a condition was timed in enough processes, each turn in one of its own.

    What a process happens to get (its memory's layout, a kernel compiled once) is the same for all turns in it, so that
    turns in one process are one draw.
    """
    here = record.get(str(seq_len), {})
    taken = here.get("turns", {}).get(label, [])
    return bool(FRESH <= len(taken) == here.get("processes", 1))


def read_timing(folder: Path) -> dict[str, Any]:
    """The record by length; empty if the study was not timed."""
    path = folder / TIMING
    return json.loads(path.read_text()) if path.exists() else {}


def machines(record: dict[str, Any]) -> list[str]:
    """The machines on which times were taken, over all lengths."""
    return sorted(
        {" · ".join(str(value) for value in here.get("machine", {}).values() if value) for here in record.values()}
    )


def turns(record: dict[str, Any], label: str, seq_len: int, name: str) -> pd.Series:
    """A condition's times by turn [ms]; the median alone where only that was kept, nothing where others were busy."""
    here = record.get(str(seq_len), {})
    if here.get("contended", True):
        return pd.Series(dtype=float)
    taken = [turn[name] for turn in here.get("turns", {}).get(label, []) if name in turn]
    median = here.get("times", {}).get(label, {}).get(name)
    return pd.Series(taken or ([] if median is None else [median]), dtype=float)
