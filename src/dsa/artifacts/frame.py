"""A study's results as a table. Imports no torch."""

import json
from pathlib import Path

import pandas as pd


def load_study(path: str | Path) -> pd.DataFrame:
    """One row a run, nested values under dotted names (selection.mean.mass); failed runs are rows too.

    Raises:
        FileNotFoundError: no run folder below holds a result.
    """
    files = sorted(Path(path).glob("*/result.json"))
    if not files:
        raise FileNotFoundError(f"{path}: no <run>/result.json below it.")
    rows = [json.loads(file.read_text()) | {"folder": str(file.parent)} for file in files]
    return pd.json_normalize(rows)
