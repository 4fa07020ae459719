"""The share of the headroom that conditions recover: 0 is no better than a control that learns nothing, 1 is dense."""

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.headroom import MEANINGS, opponent
from dsa.analysis.output.figures.limits import axis, ends
from dsa.analysis.output.figures.places import labels, places, role, title
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row

KNOW_NOTHING = ("random", "window", "static")  # of what the query asks: they do not stretch the axis


def chart(analysis: Analysis) -> Chart:
    """Both losses; the headroom they share in is told beside each value."""
    shares = [h for h in analysis.headroom if SCALES[h.metric].unit == "nats"]
    kind = opponent(analysis.prepared)
    metrics = list(dict.fromkeys(h.metric for h in shares))
    panels = []
    for place in places(analysis):
        rows, core, others = [], [1.0], [0.0]
        for label in labels(analysis, place):
            marks = []
            for h in shares:
                if (h.seq_len, h.label) == (place[0], label):
                    note = f"of {h.headroom:.4g} nats, {h.seeds} seeds"
                    marks.append(Mark(metrics.index(h.metric), h.recovered, h.recovered_interval, note=note))
                    (others if role(analysis, label) in KNOW_NOTHING else core).extend(
                        ends(h.recovered, h.recovered_interval)
                    )
            if marks:
                rows.append(Row(label, role(analysis, label), tuple(marks)))
        if rows:
            panels.append(
                Panel(title(place), axis("share of headroom recovered", core, others, log=False), rows=tuple(rows))
            )
    return Chart(
        name="recovered",
        kind="forest",
        title="Share of the headroom recovered",
        panels=tuple(panels),
        series=tuple(SCALES[m].plain for m in metrics),
        caption=f"0: no better than the control {kind} ({MEANINGS[kind]}, at the controls' budget); 1: dense. "
        "Losses count no more than chance. Mean and 95 % BCa interval over seeds."
        + ("" if panels else f" Not shown: nothing can be ranked, or {kind} or dense attention has no run yet."),
    )
