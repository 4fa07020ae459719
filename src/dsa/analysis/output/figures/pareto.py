"""Quality against one cost: the front, what is dominated, and what the intervals leave open."""

from dataclasses import replace

from dsa.analysis.inputs.commands import command
from dsa.analysis.inputs.cost import COSTS, cost_of, speed_obstacle
from dsa.analysis.inputs.timing import TURNS
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.pareto import Point
from dsa.analysis.judgement.price import spread, typical
from dsa.analysis.output.figures.places import Place, labels, places, role, scale, title
from dsa.analysis.output.figures.spec import Chart, Panel, Spot
from dsa.analysis.output.figures.spots import CONDITIONS, framed
from dsa.analysis.statistics.intervals import bootstrap_interval

TITLES = {
    "flops": "operations",
    "step_ms": "measured step time",
    "indexer_params": "indexer parameters",
    "memory_mb": "memory",
}
AXES = {
    "flops": "operations a sequence, index and attention",
    "step_ms": "time of a training step [ms]",
    "indexer_params": "parameters of the indexers",
    "memory_mb": "peak memory of a training step [MB]",
}

OFFERED = (*CONDITIONS, "dense")  # what can be had: other controls look at the answer, or at nothing
ON_SCALE = (
    *CONDITIONS,
    "dense",
    "oracle",
    "sink_window",
)  # who is always shown: the ceilings, and who has to be beaten


def chart(analysis: Analysis, cost: str) -> Chart:
    """One cost.

    Args:
        cost: flops, step_ms, indexer_params or memory_mb.
    """
    points = {(p.seq_len, p.label): p for p in analysis.points if p.cost == cost}
    panels = [one for place in places(analysis) if (one := panel(analysis, place, cost, points)) is not None]
    return Chart(
        name=f"pareto_{cost}",
        kind="scatter",
        title=f"Quality against {TITLES[cost]}",
        panels=tuple(panels),
        caption="Left and "
        + ("down" if scale(analysis).sign > 0 else "up")
        + " is better. Bars: 95 % BCa intervals "
        + (f"over seeds; of times {TURNS}. " if COSTS[cost].timed else "over seeds. ")
        + "A condition is out where another is shown to be no worse (within the margin) and cheaper, or better and no "
        "dearer; corrected over all that cost no more. Undecided: the seeds do not tell. Dashed: "
        + ("" if COSTS[cost].of_attention else "dense attention, which has no indexer, and the ")
        + "envelope of the means"
        + (", dense attention among them." if COSTS[cost].of_attention else ".")
        + absent(analysis, cost),
    )


def absent(analysis: Analysis, cost: str) -> str:
    """Why lengths or conditions are not there."""
    prepared = analysis.prepared
    if not COSTS[cost].timed:
        return ""
    reasons = {
        reason: seq_len
        for seq_len in prepared.lengths
        for label in prepared.conditions(seq_len)
        if (reason := speed_obstacle(prepared, label, seq_len))
    }
    return "".join(f" Not shown where {reason}." for reason in reasons)


def panel(analysis: Analysis, place: Place, cost: str, points: dict[tuple[int, str], Point]) -> Panel | None:
    """One length; None if no condition's cost is known there."""
    spots = [s for label in labels(analysis, place) if (s := spot(analysis, place, label, cost, points)) is not None]
    mine = [s for s in spots if s.role in CONDITIONS]
    if not mine:
        return None
    y_label = f"{scale(analysis).plain} [{scale(analysis).unit}]"
    guides = level(analysis, mine[0].label, place[0]) if not COSTS[cost].of_attention else ()
    framed_ = framed(title(place), AXES[cost], y_label, spots, ON_SCALE, guides=guides)
    ranked = any(s.standing != "unranked" for s in mine)
    note = "; ".join(text for text in ("" if ranked else "nothing is ranked here", framed_.note) if text)
    offered = [s for s in spots if s.role in OFFERED] if ranked else []
    return replace(framed_, envelope=envelope(offered, scale(analysis).sign), note=note)


def level(analysis: Analysis, label: str, seq_len: int) -> tuple[float, ...]:
    """Quality of dense attention beside a condition's runs, a line across where it has no such cost."""
    dense = analysis.prepared.dense(label, seq_len, scale(analysis))
    return (float(dense.mean()),) if len(dense) else ()


def envelope(spots: list[Spot], sign: int) -> tuple[tuple[float, float], ...]:
    """Means that no other mean beats on both axes, by rising cost: of what can be had, the conditions and dense."""
    out: list[tuple[float, float]] = []
    for spot in sorted(spots, key=lambda s: (s.x, s.y * sign)):
        if not out or spot.y * sign < out[-1][1] * sign:
            out.append((spot.x, spot.y))
    return tuple(out)


def spot(analysis: Analysis, place: Place, label: str, cost: str, points: dict[tuple[int, str], Point]) -> Spot | None:
    """A condition or control; None if its cost or quality is unknown, or it has no such cost."""
    prepared, point, kind = analysis.prepared, points.get((place[0], label)), role(analysis, label)
    quality = prepared.quality(label, place[0], scale(analysis))
    price = cost_of(prepared, label, place[0], COSTS[cost])
    if not len(quality) or not len(price) or (not COSTS[cost].of_attention and kind not in CONDITIONS):
        return None
    return Spot(
        label=label,
        role=kind,
        x=typical(price, COSTS[cost]),
        y=float(quality.mean()),
        x_interval=spread(price, COSTS[cost]),
        y_interval=point.quality_interval if point else bootstrap_interval(quality.to_numpy()),
        standing=standing(point),
        note=f"dominated by {', '.join(point.dominated_by)}" if point and point.dominated_by else "",
        command=command(prepared, label, place[0]) or "",
    )


def standing(point: Point | None) -> str:
    """Where a condition stands."""
    if point is None:
        return "unranked"
    if not point.on_front:
        return "dominated"
    return "front" if point.shown else "open"
