"""What attention costs, part by part, beside dense attention."""

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.places import Place, labels, places, role, title
from dsa.analysis.output.figures.spec import Axis, Chart, Mark, Panel, Row
from dsa.artifacts.names import CONTROLS

PARTS = ("indexer", "select", "sparse_attention", "dense_attention")


def chart(analysis: Analysis) -> Chart:
    """Counted operations of the forward pass over one sequence."""
    panels = [panel(analysis, place) for place in places(analysis)]
    return Chart(
        name="cost",
        kind="bars",
        title="Operations of attention, by component",
        panels=tuple(p for p in panels if p.rows),
        series=tuple(part.replace("_", " ") for part in PARTS),
        caption="Counted, not timed: forward pass over one sequence, all layers. Percent: of dense attention.",
    )


def panel(analysis: Analysis, place: Place) -> Panel:
    """One length."""
    rows = []
    for label in labels(analysis, place):
        kind = role(analysis, label)
        if kind in CONTROLS and kind != "dense":
            continue
        parts = PARTS[3:] if kind == "dense" else PARTS[:3]
        values = {part: analysis.prepared.column(label, place[0], f"flops.{part}") for part in PARTS}
        if any(values[part].empty for part in parts):
            continue
        whole = float(values["dense_attention"].mean()) if len(values["dense_attention"]) else None
        marks = tuple(Mark(PARTS.index(part), float(values[part].mean()), reference=whole) for part in parts)
        rows.append(Row(label, kind, marks))
    return Panel(title(place), Axis("operations a sequence, forward"), rows=tuple(rows))
