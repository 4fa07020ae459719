"""Training curves from every run's metrics.csv: the mean over seeds with its interval."""

from pathlib import Path

import numpy as np
import pandas as pd

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.limits import axis
from dsa.analysis.output.figures.places import labels, places, role, title
from dsa.analysis.output.figures.spec import Axis, Chart, Line, Panel
from dsa.analysis.statistics.intervals import t_interval
from dsa.artifacts.files import METRICS

POINTS = 48  # a longer course is averaged over this many stretches
COURSES = {
    "curves_warmup": ("warmup", "train/indexer_loss", "Warm-up: the indexers learn", "indexer loss, KL [nats]"),
    "curves_sparse": ("sparse", "train/loss", "Sparse stage: the model learns", "training loss [nats per token]"),
}


def charts(analysis: Analysis) -> list[Chart]:
    """Both stages, from one reading of the files."""
    courses = {folder: read(folder) for folder in origins(analysis.prepared.runs).dropna()}
    return [chart(analysis, name, courses) for name in COURSES]


def origins(runs: pd.DataFrame) -> pd.Series:
    """Where each run was trained: its folder, or that of the run it was linked to."""
    here, origin = (runs.get(name, pd.Series(index=runs.index, dtype=object)) for name in ("folder", "reused_from"))
    return origin.where(origin.notna(), here)


def read(folder: str) -> pd.DataFrame:
    """A run's training rows; none if it kept no metrics.csv."""
    path = Path(folder) / METRICS
    wanted = ("stage", "stage_step", "kind", *(column for _, column, _, _ in COURSES.values()))
    if not path.exists():
        return pd.DataFrame(columns=list(wanted))
    return pd.read_csv(path, usecols=lambda column: column in wanted).query("kind == 'train'")


def chart(analysis: Analysis, name: str, courses: dict[str, pd.DataFrame]) -> Chart:
    """One stage."""
    stage, column, heading, unit = COURSES[name]
    panels = []
    for place in places(analysis):
        lines = []
        for label in labels(analysis, place):
            rows = analysis.prepared.rows(label, place[0])
            of_seed = [course(courses[f], stage, column) for f in origins(rows).dropna()]
            line = averaged(label, role(analysis, label), [one for one in of_seed if len(one)])
            if line is not None:
                lines.append(line)
        values = [y for line in lines for y in line.y]
        if lines:
            panels.append(
                Panel(title(place), Axis("optimiser step of the stage"), axis(unit, values), lines=tuple(lines))
            )
    caption = f"Mean over seeds and over {POINTS} stretches of the stage; hover for a condition's 95 % t interval."
    return Chart(name, "lines", heading, tuple(panels), caption=caption if panels else "No run kept a course.")


def course(rows: pd.DataFrame, stage: str, column: str) -> pd.Series:
    """One run's values by step of a stage."""
    if column not in rows:
        return pd.Series(dtype=float)
    return rows[rows["stage"] == stage].set_index("stage_step")[column].dropna().astype(float)


def averaged(label: str, kind: str, of_seed: list[pd.Series]) -> Line | None:
    """The mean over seeds, on the steps that all of them have; None without any."""
    table = pd.DataFrame({seed: one[~one.index.duplicated(keep="last")] for seed, one in enumerate(of_seed)}).dropna()
    if table.empty:
        return None
    stretch = np.arange(len(table)) * min(POINTS, len(table)) // len(table)
    steps = table.index.to_series().groupby(stretch).mean()
    means = table.groupby(stretch).mean()
    middle = means.mean(axis=1)
    bounds = [t_interval(row) or (float(row[0]), float(row[0])) for row in means.to_numpy()]
    low, high = zip(*bounds, strict=True)
    return Line(label, kind, tuple(steps.to_list()), tuple(middle.to_list()), low, high, f"{len(of_seed)} seeds")
