"""What an analysis leaves beside the runs: results.csv, results.parquet and verdict.json, each in one rename."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.analyse import Analysis
from dsa.analysis.efficiency import FORMULA
from dsa.analysis.replaced import replaced

SCHEMA = 1
VERDICT, CSV, PARQUET = "verdict.json", "results.csv", "results.parquet"


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write all three into a study's folder; their paths.

    Raises:
        OSError: the folder cannot be written.
    """
    table = flat(analysis.prepared.runs)
    text = json.dumps(record(analysis), indent=2, allow_nan=False) + "\n"
    return [
        replaced(folder / VERDICT, lambda path: path.write_text(text)),
        replaced(folder / CSV, lambda path: table.to_csv(path, index=False)),
        replaced(folder / PARQUET, lambda path: table.to_parquet(path, index=False)),
    ]


def flat(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run, with lists as JSON: what every table format can hold."""
    nested = [name for name in runs if runs[name].map(lambda v: isinstance(v, list | dict)).any()]
    texts = {
        str(name): runs[name].map(lambda v: json.dumps(v) if isinstance(v, list | dict) else None) for name in nested
    }
    return runs.assign(**texts).convert_dtypes()


def record(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain data: verdict.json, schema 1. What is undefined is null."""
    prepared = analysis.prepared
    meta = prepared.meta
    lists = (
        "qualities",
        "discrimination",
        "comparisons",
        "to_dense",
        "headroom",
        "best",
        "points",
        "scaling",
        "guards",
    )
    return finite(
        {
            "schema": SCHEMA,
            "study": meta.name,
            "question": meta.question,
            "hypothesis": meta.hypothesis,
            "verdict": analysis.answer,
            "sentence": analysis.sentence,
            "exploratory": meta.exploratory,
            "metric": meta.metric,
            "baseline": meta.baseline,
            "margin": meta.margin,
            "lengths": prepared.lengths,
            "finished": len(prepared.runs),
            "gaps": [asdict(gap) for gap in prepared.gaps],
            **{name: [asdict(one) for one in getattr(analysis, name)] for name in lists},
            "efficiency": {"formula": FORMULA, "rows": [asdict(row) for row in analysis.efficiency]},
        }
    )


def finite(value: Any) -> Any:
    """The same data with null for what JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
