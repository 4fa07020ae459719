"""Pareto fronts of quality against each cost, with a dominance that respects the intervals."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.cost import COSTS, Cost, cost_of
from dsa.analysis.prepare import Prepared
from dsa.analysis.ranking import Ranked
from dsa.analysis.scale import Scale
from dsa.analysis.statistics import bootstrap_interval, t_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """A condition on one front: both axes with 95 % BCa intervals, and which conditions dominate it.

    Args:
        shown: no other condition can be said to dominate it, and none is merely undecided against it.
    """

    label: str
    seq_len: int
    context: str
    metric: str
    cost: str
    quality: float
    quality_interval: Interval | None
    price: float
    price_interval: Interval | None
    on_front: bool
    shown: bool
    dominated_by: tuple[str, ...]


def fronts(prepared: Prepared, field: Ranked, scale: Scale) -> list[Point]:
    """Every ranked condition on every front for which its cost is known."""
    return [
        point
        for (seq_len, context), labels in field.fields.items()
        for cost in COSTS.values()
        for point in front(prepared, labels, seq_len, context, scale, cost)
    ]


def front(prepared: Prepared, labels: list[str], seq_len: int, context: str, scale: Scale, cost: Cost) -> list[Point]:
    """One front."""
    quality = {label: prepared.quality(label, seq_len, scale) for label in labels}
    price = {label: cost_of(prepared, label, seq_len, cost) for label in labels}
    known = [label for label in labels if len(quality[label]) and len(price[label])]
    margin = prepared.meta.margin.get(scale.metric, 0.0)
    better = {(a, b): step(quality[a], quality[b], scale.sign) for a in known for b in known if a != b}
    cheaper = {(a, b): step(price[a], price[b], 1) for a in known for b in known if a != b}
    out = []
    for label in known:
        others = [other for other in known if other != label]
        over = [o for o in others if dominates(better[o, label], cheaper[o, label], margin)]
        safe = all(surely_ahead(better[label, o], margin) or surely_ahead(cheaper[label, o]) for o in others)
        point = Point(
            label=label,
            seq_len=seq_len,
            context=context,
            metric=scale.metric,
            cost=cost.name,
            quality=float(quality[label].mean()),
            quality_interval=bootstrap_interval(quality[label].to_numpy()),
            price=float(price[label].mean()),
            price_interval=bootstrap_interval(price[label].to_numpy()),
            on_front=not over,
            shown=not over and safe,
            dominated_by=tuple(over),
        )
        out.append(point)
    return out


def step(mine: pd.Series, theirs: pd.Series, sign: int) -> Interval | None:
    """95 % t interval of the difference paired by seed, negative where mine is ahead; None for fewer than two seeds."""
    return t_interval(((mine - theirs) * sign).dropna().to_numpy())


def dominates(quality: Interval | None, price: Interval | None, margin: float) -> bool:
    """Whether one condition is surely no worse than another on both axes and surely ahead on one.

    No worse in quality means within the margin; no worse in cost allows nothing. Where an interval leaves it open, or
    there is none, the other is not dominated.
    """
    if quality is None or price is None:
        return False
    return quality[1] <= margin and price[1] <= 0 and (quality[1] < 0 or price[1] < 0)


def surely_ahead(interval: Interval | None, by: float = 0.0) -> bool:
    """Whether a difference is negative beyond its interval, and beyond a margin."""
    return interval is not None and interval[1] < -by
