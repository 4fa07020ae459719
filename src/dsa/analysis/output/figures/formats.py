"""What a number format costs: the error that it makes in the index scores against what is lost by it."""

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures.places import Place, labels, places, title
from dsa.analysis.output.figures.spec import Chart, Spot
from dsa.analysis.output.figures.spots import framed
from dsa.analysis.statistics.intervals import bootstrap_interval

ERRORS = ("swap_selection.mean.quantisation_error", "selection.mean.quantisation_error")
GROUP = "precision"


def chart(analysis: Analysis) -> Chart:
    """A panel for each length and each composition; nothing where none is there with rounded scores and exact ones."""
    meta = analysis.prepared.meta
    scale = scale_of(meta.metric)
    margin = meta.margin.get(meta.metric, 0.0)
    open_ = rankable(analysis.discrimination)
    panels = []
    for place in places(analysis):
        spots: dict[str, list[Spot]] = {}
        for label in labels(analysis, place) if place in open_ else ():
            reference = exact(analysis.prepared, label, place) if label in meta.conditions else None
            if reference is not None and (one := spot(analysis, place, label, reference)) is not None:
                spots.setdefault(reference, []).append(one)
        for reference, own in spots.items():
            y_label = f"{scale.quantity} less that of exact scores [{scale.unit}]"
            guides = (-margin, 0.0, margin) if margin else (0.0,)
            x_label = "relative error of the index scores"
            name = f"{title(place)}, against {reference}"
            panels.append(framed(name, x_label, y_label, own, log=False, guides=guides, margin=margin))
    return Chart(
        name="format_error",
        kind="scatter",
        title="Number formats: error against loss",
        panels=tuple(panels),
        caption=f"{scale.plain.capitalize()}, less that of the same composition with exact scores: mean and 95 % BCa "
        "interval over seeds. Dashed: the margin. This says nothing about speed.",
    )


def spot(analysis: Analysis, place: Place, label: str, reference: str) -> Spot | None:
    """A condition whose scores are rounded, against the one that has them exact; None if they are not."""
    prepared = analysis.prepared
    mine = error(prepared, label, place)
    if not len(mine) or mine.mean() == 0:
        return None
    scale = scale_of(prepared.meta.metric)
    lost = (prepared.quality(label, place[0], scale) - prepared.quality(reference, place[0], scale)).dropna()
    if not len(lost):
        return None
    values = lost.to_numpy()
    note = f"less {reference}, {len(values)} seeds"
    interval = bootstrap_interval(values)
    return Spot(label, "condition", float(mine.mean()), float(values.mean()), None, interval, "measured", note)


def error(prepared: Prepared, label: str, place: Place) -> pd.Series:
    """Relative error of the index scores by seed, in the state of the model that the metric judges."""
    untouched = prepared.meta.metric.startswith("swap_")
    found = [prepared.column(label, place[0], name) for name in (ERRORS if untouched else ERRORS[1:])]
    return next((values for values in found if len(values)), found[-1])


def exact(prepared: Prepared, label: str, place: Place) -> str | None:
    """The same composition in a format that rounds nothing."""
    options = without_format(prepared, label)
    for other in prepared.conditions(*place):
        errors = error(prepared, other, place)
        if other != label and without_format(prepared, other) == options and len(errors) and (errors == 0).all():
            return other
    return None


def without_format(prepared: Prepared, label: str) -> dict[str, str]:
    """What is compared, the format apart."""
    options = prepared.meta.options(label)
    return {key: str(value) for key, value in options.items() if key.split(".")[0] != GROUP}
