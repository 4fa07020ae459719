"""What a selection captures, layer by layer: attention mass beside the best there is at that budget, and recall."""

import numpy as np

from dsa.analysis.inputs.scale import SWAPPED, TRAINED
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.forest import MOST
from dsa.analysis.output.figures.limits import axis
from dsa.analysis.output.figures.places import labels, places, role, title
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row
from dsa.analysis.statistics.intervals import t_interval
from dsa.analysis.statistics.values import Array

TITLES = {
    "mass": "Attention mass captured, by layer",
    "recall": "Recall of the keys of highest attention, by layer",
    "mean_k": "Budget spent, by layer",
}
AXES = {
    "mass": "share of dense attention on selected keys",
    "recall": "share of the keys of highest attention selected",
    "mean_k": "kept keys per query [tokens]",
}
CAPTIONS = {
    "mass": "The most that a selection can capture (ticks beside its marks, the oracle's row) are the keys of highest "
    "attention, as many per query.",
    "recall": "Over queries that could not keep every key.",
    "mean_k": "Selectors whose budget differs between layers or seeds.",
}
MANY = "With so many layers a picture has a cell for each, the first on the left, and a row's mean on the right. "


def chart(analysis: Analysis, measure: str) -> Chart:
    """One measure of the models that the runs end with.

    Args:
        measure: mass, recall or mean_k (the latter for adaptive selectors alone).
    """
    panels, deepest = [], 0
    for place in places(analysis):
        rows = []
        for label in labels(analysis, place):
            values = by_layer(analysis, label, place[0], measure)
            if not values.size or role(analysis, label) == "dense" or (measure == "mean_k" and np.ptp(values) < 1e-6):
                continue
            best = by_layer(analysis, label, place[0], "oracle_mass") if measure == "mass" else values[:0]
            rows.append(Row(label, role(analysis, label), marks(values, best)))
            deepest = max(deepest, values.shape[1])
        every = [end for row in rows for mark in row.marks for end in (mark.value, *(mark.interval or ()))]
        if rows:
            panels.append(Panel(title(place), axis(AXES[measure], every, log=False), rows=tuple(rows)))
    return Chart(
        name="budget" if measure == "mean_k" else measure,
        kind="heat" if deepest > MOST else "forest",
        title=TITLES[measure],
        panels=tuple(panels),
        series=tuple(f"layer {layer}" for layer in range(deepest)),
        caption=f"Mean{'' if deepest > MOST else ' and 95 % t interval'} over seeds, {stage(analysis)}. "
        + (MANY if deepest > MOST else "")
        + CAPTIONS[measure],
    )


def stage(analysis: Analysis) -> str:
    """When the selections of a study's runs were measured: each run tells of the model that it ends with."""
    runs = analysis.prepared.runs
    untouched = "artifacts.joint" in runs and runs["artifacts.joint"].isna().all()
    return (SWAPPED if untouched else TRAINED)[0]


def by_layer(analysis: Analysis, label: str, seq_len: int, measure: str) -> Array:
    """A measure by seed and layer; empty where it was not measured in every layer of every run."""
    rows = analysis.prepared.rows(label, seq_len)
    if "selection.layers" not in rows:
        return np.empty((0, 0))
    values = [[layer.get(measure) for layer in layers] for layers in rows["selection.layers"].dropna()]
    known = [v for v in values if v and None not in v]
    return np.array(known, dtype=float) if known and len({len(v) for v in known}) == 1 else np.empty((0, 0))


def marks(values: Array, best: Array) -> tuple[Mark, ...]:
    """One mark a layer."""
    note = f"{len(values)} seeds"
    references = best.mean(axis=0).tolist() if best.size else [None] * values.shape[1]
    return tuple(
        Mark(layer, float(column.mean()), t_interval(column), references[layer], note)
        for layer, column in enumerate(values.T)
    )
