"""What an analysis leaves beside the runs: verdict.json, results, figures and the report, each file in one rename."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.efficiency import FORMULA
from dsa.analysis.output.figures.every import FOLDER, charts, save
from dsa.analysis.output.replaced import replaced
from dsa.analysis.output.report.page import write_report
from dsa.analysis.output.spreadsheet import for_spreadsheets
from dsa.analysis.statistics.values import ALPHA
from dsa.artifacts.files import VERDICT
from dsa.artifacts.finite import finite

SCHEMA = 2
RULE = {
    "name": "sign-flip-holm-and-no-loss",
    "difference": "paired sign-flip test of the mean difference, exact up to 20 seeds; Holm over the comparisons of a "
    "length and metric",
    "no_loss": "two one-sided t tests within the margin and an exact binomial test that more than 80 % of seeds lie "
    "within it, the larger p of both; Holm over the comparisons of a length and metric",
    "lossless": "the same on the side of losing alone, on which a recommendation and 'loses nothing' rest: a one-sided "
    "t test that less than the margin is lost on average, and an exact binomial test that more than 80 % of seeds lose "
    "no more than it; the larger p, Holm likewise (p_lossless)",
    "guarantee": "of the seeds whatever the shape of the differences; of the mean not where fewer than a fifth of all "
    "seeds fail by many margins: with a tenth at ten margins, the mean just on the margin, 30 seeds show no loss in "
    "18 % of studies of one comparison",
    "alpha": ALPHA,
}
CSV, PARQUET = "results.csv", "results.parquet"


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write everything into a study's folder; the paths, figures apart.

    Raises:
        OSError: the folder cannot be written.
    """
    table = flat(analysis.prepared.runs)
    text = json.dumps(record(analysis), indent=2, allow_nan=False) + "\n"
    drawn = charts(analysis)
    for chart in drawn:
        save(chart, folder / FOLDER)
    return [
        replaced(folder / VERDICT, lambda path: path.write_text(text)),
        replaced(folder / CSV, lambda path: for_spreadsheets(table).to_csv(path, index=False)),
        replaced(folder / PARQUET, lambda path: table.to_parquet(path, index=False)),
        write_report(analysis, drawn, folder),
    ]


def flat(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a run, with lists as JSON: what every table format can hold."""
    nested = [name for name in runs if runs[name].map(lambda v: isinstance(v, list | dict)).any()]
    texts = {
        str(name): runs[name].map(lambda v: json.dumps(v) if isinstance(v, list | dict) else None) for name in nested
    }
    return runs.assign(**texts).convert_dtypes()


def record(analysis: Analysis) -> dict[str, Any]:
    """The analysis as plain data: verdict.json, schema 2. What is undefined is null."""
    prepared = analysis.prepared
    meta = prepared.meta
    lists = (
        "qualities",
        "discrimination",
        "comparisons",
        "to_dense",
        "sampled",
        "contrasts",
        "regret",
        "headroom",
        "best",
        "points",
        "scaling",
        "guards",
    )
    return finite(
        {
            "schema": SCHEMA,
            "rule": RULE,
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
            "confirmation": None if analysis.confirmation is None else asdict(analysis.confirmation),
            "efficiency": {"formula": FORMULA, "rows": [asdict(row) for row in analysis.efficiency]},
        }
    )
