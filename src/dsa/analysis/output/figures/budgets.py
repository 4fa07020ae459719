"""What is lost beyond the oracle against the budget: per pair to remember where the plan says how many there are."""

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures.excess import LEFT_OUT, excess
from dsa.analysis.output.figures.pairs import ratio
from dsa.analysis.output.figures.places import Place, labels, places, role
from dsa.analysis.output.figures.spec import Chart, Panel, Spot
from dsa.analysis.output.figures.spots import framed
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.share import at_length

PAIRS = "data.pairs"
MOST = 1.01  # budgets that differ by less are one


def chart(analysis: Analysis) -> Chart:
    """One panel a length; nothing where all conditions have one budget, or each keys for a pair (see `pairs`)."""
    scale = scale_of(analysis.prepared.meta.metric)
    open_ = rankable(analysis.discrimination)
    by_pair = all(pairs(analysis, place) for place in places(analysis))
    panels = []
    for length in dict.fromkeys(length for length, _ in places(analysis)):
        here = [p for p in places(analysis) if p[0] == length and p in open_ and ratio(analysis, p) is None]
        spots = [
            s for place in here for label in labels(analysis, place) if (s := spot(analysis, place, label, by_pair))
        ]
        if several([s.x for s in spots if s.role in ("condition", "baseline")]):
            panels.append(panel(analysis, length, spots, by_pair))
    return Chart(
        name="budget_excess",
        kind="scatter",
        title="Excess over the oracle by budget",
        panels=tuple(panels),
        caption=f"{scale.plain.capitalize()}, less that of the oracle at the same budget: mean and 95 % BCa interval "
        "over seeds. Dashed: the margin."
        + (" Left of 1 there are fewer keys than pairs to remember." if by_pair else ""),
    )


def several(budgets: list[float]) -> bool:
    """Whether there is more than one budget."""
    return bool(budgets) and max(budgets) > MOST * min(budgets)


def pairs(analysis: Analysis, place: Place) -> float | None:
    """How many pairs a row holds; None where the plan does not say."""
    meta = analysis.prepared.meta
    label = analysis.prepared.conditions(*place)[0]
    return at_length((meta.common | meta.conditions[label]).get(PAIRS), place[0])


def spot(analysis: Analysis, place: Place, label: str, by_pair: bool) -> Spot | None:
    """A condition or control; None if it has no budget, or nothing to be compared with."""
    kept = analysis.prepared.column(label, place[0], "mean_k")
    values = excess(analysis.prepared, label, place)
    if role(analysis, label) in LEFT_OUT or not len(kept) or not len(values):
        return None
    whole = pairs(analysis, place) if by_pair else place[0]
    assert whole is not None
    interval = bootstrap_interval(values.to_numpy())
    x = float(kept.mean()) / whole
    return Spot(
        label, role(analysis, label), x, float(values.mean()), None, interval, "measured", f"{len(values)} seeds"
    )


def panel(analysis: Analysis, length: int, spots: list[Spot], by_pair: bool) -> Panel:
    """One length, all contexts."""
    meta = analysis.prepared.meta
    margin = meta.margin.get(meta.metric, 0.0)
    scale = scale_of(meta.metric)
    return framed(
        f"length {length}",
        "kept keys a query per pair" if by_pair else "kept keys a query, share of the length",
        f"excess over the oracle [{scale.unit}]",
        spots,
        log=False,
        guides=(0.0, margin) if margin else (0.0,),
        margin=margin,
    )
