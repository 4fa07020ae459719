"""Every seed of every condition and control: what it loses beyond the keys of highest attention at the same budget."""

import pandas as pd

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures.excess import LEFT_OUT, excess
from dsa.analysis.output.figures.places import Place, labels, places, role, title
from dsa.analysis.output.figures.spec import Axis, Chart, Mark, Panel, Row

LEAST = 1e-4  # what lies below is drawn here [the metric's unit]
ROOM = 1.3  # how far the axis goes beyond both ends, as a factor


def chart(analysis: Analysis) -> Chart:
    """One panel a length; nothing without an oracle, and none where nothing may be ranked."""
    meta, open_ = analysis.prepared.meta, rankable(analysis.discrimination)
    found = {
        place: {
            label: values
            for label in labels(analysis, place)
            if role(analysis, label) not in LEFT_OUT and len(values := excess(analysis.prepared, label, place))
        }
        for place in places(analysis)
        if place in open_
    }
    every = sorted({int(str(seed)) for rows in found.values() for values in rows.values() for seed in values.index})
    scale, margin = scale_of(meta.metric), meta.margin.get(meta.metric, 0.0)
    beyond = (
        f" Dashed: the margin of {margin:g} {scale.unit}; to the right: how many seeds lie beyond." if margin else ""
    )
    return Chart(
        name="seeds",
        kind="dots",
        title="Excess over the oracle, seed by seed",
        panels=tuple(panel(analysis, place, rows, every) for place, rows in found.items() if rows),
        series=tuple(f"seed {seed}" for seed in every),
        caption=f"A dot a seed, one colour for each: {scale.plain}, less that of the oracle (the keys of highest "
        f"attention, at the same budget), on a log scale; what is below {LEAST:g} is drawn there. The baseline's name "
        f"is bold, controls stand below the line.{beyond}",
    )


def panel(analysis: Analysis, place: Place, rows: dict[str, pd.Series], every: list[int]) -> Panel:
    """One length."""
    meta = analysis.prepared.meta
    scale, margin = scale_of(meta.metric), meta.margin.get(meta.metric, 0.0)
    drawn = tuple(
        Row(
            label,
            role(analysis, label),
            tuple(Mark(every.index(int(str(seed))), float(value)) for seed, value in values.items()),
            note=f"{int((values > margin).sum())}/{len(values)}" if margin else "",
        )
        for label, values in rows.items()
    )
    most = max([margin, 10 * LEAST, *(mark.value for row in drawn for mark in row.marks)])
    x = Axis(
        f"{scale.quantity} less the oracle's [{scale.unit}]",
        log=True, limits=(LEAST / ROOM, most * ROOM), marked=True, guides=(margin,) if margin else (),
    )  # fmt: skip
    return Panel(title(place), x, rows=drawn)
