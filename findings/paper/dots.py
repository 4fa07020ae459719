"""Every seed of every condition: what it loses beyond the keys of highest attention at the same budget."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.excess import excess
from dsa.analysis.output.figures.places import Place, places, title
from dsa.analysis.output.figures.spec import Chart

LEAST = 1e-4  # what lies below is drawn here [the metric's unit]
TITLE = "Excess over the oracle, seed by seed"
SHOWN = ("replicate", "static", "sink_window", "window", "random")
CAPTION = (
    "A dot a seed, one colour for each: loss less that of the oracle (the keys of highest attention, at the same "
    "budget), on a log scale; what is below 0.0001 is drawn there. Dashed: the margin, and how many seeds lie beyond."
)


def draw(analysis: Analysis) -> Figure | None:
    """The picture; None where there is no oracle or nothing may be ranked."""
    prepared, open_ = analysis.prepared, rankable(analysis.discrimination)
    rows = {
        place: {
            label: values
            for label in prepared.labels(place[0])
            if prepared.meta.context(label) == place[1]
            and prepared.meta.control(label) in (None, *SHOWN)
            and len(values := excess(prepared, label, place))
        }
        for place in places(analysis)
        if place in open_
    }
    rows = {place: found for place, found in rows.items() if found}
    if not rows:
        return None
    most = max(len(found) for found in rows.values())
    names = [style.fit(label) for found in rows.values() for label in found]
    figure, axes = style.new_figure(
        Chart("seeds", "dots", TITLE, ()), len(rows), 3.2 + style.width_of_labels(names), 1.2 + 0.2 * most
    )
    for ax, (place, found) in zip(axes, rows.items(), strict=True):
        panel(ax, analysis, place, found, most)
    return figure


def panel(ax: Axes, analysis: Analysis, place: Place, found: dict[str, pd.Series], most: int) -> None:
    """One length."""
    meta = analysis.prepared.meta
    margin = meta.margin.get(meta.metric)
    seeds = sorted({seed for values in found.values() for seed in values.index})
    for y, values in enumerate(found.values()):
        colours = [seeds.index(seed) / max(1, len(seeds) - 1) for seed in values.index]
        jitter = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else [0.0]
        ax.scatter(values.clip(lower=LEAST), y + np.asarray(jitter), c=colours, cmap="viridis", s=7, linewidths=0)
        if margin:
            beyond = int((values > margin).sum())
            told = f"{beyond}/{len(values)}"
            ax.annotate(told, (1.01, y), xycoords=("axes fraction", "data"), fontsize=6, va="center")
    ax.set_xscale("log")
    if margin:
        ax.axvline(margin, color="0.4", linewidth=0.8, linestyle="--")
    ax.set_ylim(most - 0.4, -0.6)
    ax.set_yticks(range(len(found)), [style.fit(label) for label in found], fontsize=7)
    for text, label in zip(ax.get_yticklabels(), found, strict=True):
        bold = label in meta.conditions and meta.reference(label) == label
        text.set_fontweight("bold" if bold else "normal")
        text.set_color("0.4" if meta.control(label) else "black")
    scale = scale_of(meta.metric)
    ax.set_xlabel(f"{scale.plain}, less the oracle's [{scale.unit}]", fontsize=7)
    ax.tick_params(axis="x", labelsize=6)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(style.fit(title(place), 48), fontsize=8, loc="left")
