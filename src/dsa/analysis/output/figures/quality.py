"""Quality by length: every condition and control on each scale, with intervals over seeds."""

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis, Quality
from dsa.analysis.output.figures.limits import axis, ends
from dsa.analysis.output.figures.places import Place, labels, places, role, title
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row

AXES = {
    "nats": "validation loss [nats per token]",
    "share": "right answers [share of asked tokens, of rows where exact]",
}


def chart(analysis: Analysis, unit: str = "nats") -> Chart:
    """Losses, or accuracies.

    Args:
        unit: nats or share.
    """
    metrics = [m for m in dict.fromkeys(q.metric for q in analysis.qualities) if SCALES[m].unit == unit]
    found = {(q.seq_len, q.label, q.metric): q for q in analysis.qualities if q.metric in metrics}
    panels = [panel(analysis, place, metrics, found, unit) for place in places(analysis)] if metrics else []
    primary = analysis.prepared.meta.metric
    return Chart(
        name="quality" if unit == "nats" else "accuracy",
        kind="forest",
        title="Quality by length" if unit == "nats" else "Accuracy by length",
        panels=tuple(panels),
        series=tuple(SCALES[m].plain + (" (decides)" if m == primary else "") for m in metrics),
        caption="Mean and 95 % BCa interval over seeds. " + ("Less" if unit == "nats" else "More") + " is better.",
    )


def panel(
    analysis: Analysis, place: Place, metrics: list[str], found: dict[tuple[int, str, str], Quality], unit: str
) -> Panel:
    """One length."""
    rows: list[Row] = []
    core: list[float] = []
    others: list[float] = []
    for label in labels(analysis, place):
        mine = [found[place[0], label, metric] for metric in metrics if (place[0], label, metric) in found]
        marks = tuple(Mark(metrics.index(q.metric), q.mean, q.interval, note=f"{q.seeds} seeds") for q in mine)
        rows.append(Row(label, role(analysis, label), marks))
        wide = core if role(analysis, label) in ("condition", "baseline", "dense") else others
        wide += [end for q in mine for end in ends(q.mean, q.interval)]
    return Panel(title(place), axis(AXES[unit], core, others, log=unit == "nats"), rows=tuple(rows))
