"""Which seeds fail under which condition, and how often: a failure loses more than the margin beyond the oracle."""

import numpy as np
import pandas as pd

from dsa.analysis.inputs.heads import heads_of
from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.excess import of_conditions
from dsa.analysis.output.figures.places import Place, role, title
from dsa.analysis.output.figures.spec import Axis, Chart, Mark, Panel, Row
from dsa.analysis.statistics.intervals import share_interval

OTHER = "heads unknown"


def margin_of(analysis: Analysis) -> float:
    """The margin of the primary metric; 0 if none was declared."""
    return analysis.prepared.meta.margin.get(analysis.prepared.meta.metric, 0.0)


def told(analysis: Analysis) -> str:
    """The margin with its unit."""
    return f"{margin_of(analysis):g} {scale_of(analysis.prepared.meta.metric).unit}"


def plain(analysis: Analysis) -> str:
    """The primary metric as a newcomer would call it."""
    return scale_of(analysis.prepared.meta.metric).plain


def success(analysis: Analysis) -> Chart:
    """The share of seeds that do not fail: conditions by the heads of their indexer, a panel for each length."""
    found = of_conditions(analysis) if margin_of(analysis) else {}
    conditions = analysis.prepared.meta.conditions
    counts = {label: heads_of(analysis.prepared.meta, label) for label in conditions}
    known = sorted({counts[label] for rows in found.values() for label in rows}, key=lambda n: (n is None, n or 0))
    panels = []
    for place, rows in found.items():
        ordered = sorted(rows, key=lambda label: known.index(counts[label]))
        drawn = tuple(success_row(analysis, label, known.index(counts[label]), rows[label]) for label in ordered)
        panels.append(Panel(title(place), Axis("share of seeds that count", limits=(-0.03, reach(drawn))), rows=drawn))
    one = known == [None]
    return Chart(
        name="success",
        kind="forest",
        title=f"Seeds within {told(analysis)} of the oracle" + ("" if one else ", by heads of the indexer"),
        panels=tuple(panels),
        series=("share of seeds",) if one else tuple(heads_named(count) for count in known),
        caption=f"A seed counts if its {plain(analysis)}, lies within the margin of {told(analysis)} of the oracle's "
        "(the keys of highest attention, at the same budget); one that misses by a little counts no more than one that "
        "misses by much, and the figure of failures shows by how much. Share of seeds with Clopper and Pearson's 95 % "
        "interval; to the right: how many of how many. The axis ends where the intervals do.",
    )


def reach(rows: tuple[Row, ...]) -> float:
    """Where the axis of shares ends: with the largest interval, so that small shares can be told apart."""
    return min(1.0, max(mark.interval[1] for row in rows for mark in row.marks if mark.interval)) + 0.03


def heads_named(count: int | None) -> str:
    return OTHER if count is None else f"{count} head{'' if count == 1 else 's'}"


def success_row(analysis: Analysis, label: str, series: int, values: pd.Series) -> Row:
    """One condition."""
    successes = int((values <= margin_of(analysis)).sum())
    interval = share_interval(successes, len(values))
    mark = Mark(series, successes / len(values), interval, note=f"{successes} of {len(values)} seeds")
    return Row(label, role(analysis, label), (mark,), note=f"{successes}/{len(values)}")


def matrix(analysis: Analysis) -> Chart:
    """Seed by condition: the excess over the oracle; the seeds that fail most often stand first."""
    found = of_conditions(analysis) if margin_of(analysis) else {}
    seeds = by_failures(list(found.values()), margin_of(analysis))
    panels = tuple(matrix_panel(analysis, place, rows, seeds) for place, rows in found.items())
    return Chart(
        name="failures",
        kind="matrix",
        title="Which seeds fail: excess over the oracle",
        panels=panels,
        series=tuple(f"seed {seed}" for seed in seeds),
        caption=f"One column a seed, those that fail most often first: {plain(analysis)}, "
        f"less that of the oracle. Beyond the margin of {told(analysis)} a seed has failed; darker is further beyond, "
        "on a logarithmic scale in pictures, in steps on the page. "
        "To the right: how many failed. A column that is dark throughout is an unlucky seed, a row an unlucky "
        "condition.",
    )


def by_failures(places: list[dict[str, pd.Series]], margin: float) -> list[int]:
    """All seeds, those that fail most often first."""
    failed: dict[int, float] = {}
    for rows in places:
        for values in rows.values():
            for seed, value in values.items():
                failed[int(str(seed))] = failed.get(int(str(seed)), 0) + float(value > margin)
    return sorted(failed, key=lambda seed: (-failed[seed], seed))


def matrix_panel(analysis: Analysis, place: Place, rows: dict[str, pd.Series], seeds: list[int]) -> Panel:
    """One length."""
    margin = margin_of(analysis)
    drawn = tuple(
        Row(
            label,
            role(analysis, label),
            tuple(
                Mark(column, float(values[seed]), reference=margin)
                for column, seed in enumerate(seeds)
                if seed in values.index and np.isfinite(values[seed])
            ),
        )
        for label, values in rows.items()
    )
    unit = scale_of(analysis.prepared.meta.metric).unit
    excess = Axis(f"excess over the oracle [{unit}]", log=True, marked=True)
    return Panel(title(place), Axis("seeds, the most failures first"), excess, rows=drawn)
