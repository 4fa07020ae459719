"""Times of conditions taken alone, in turns: timing.json, which a sweep leaves beside its runs."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

TIMING = "timing.json"


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
