"""Pareto fronts of quality against each cost.

In quality, the tests that decide everywhere decide here, for each condition corrected over those that might dominate
it: that some other does is said wrongly in at most 5 % of studies. In cost, the interval over seeds or turns decides.
"""

import itertools
from dataclasses import dataclass

from dsa.analysis.inputs.cost import COSTS, Cost, cost_of
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.price import spread, typical
from dsa.analysis.judgement.ranking import Ranked, apart, once
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.intervals import bootstrap_interval, t_interval
from dsa.analysis.statistics.no_loss import no_loss
from dsa.analysis.statistics.sign_flip import sign_flip
from dsa.analysis.statistics.values import ALPHA, Array, Interval


@dataclass(frozen=True)
class Point:
    """A condition or dense attention on one front: both axes with 95 % BCa intervals, and what dominates it.

    Args:
        shown: no other condition can be said to dominate it, and none is merely undecided against it.
        dominated_by: those that are shown to, corrected for the number that might.
        p: the smallest of their corrected p; 1 where none costs as little.
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
    p: float


def fronts(prepared: Prepared, field: Ranked, scale: Scale) -> list[Point]:
    """Every ranked condition on every front for which its cost is known, and dense attention, which they would replace.

    Dense attention has no indexer, and no place where indexers are compared by their parameters.
    """
    out = []
    for (seq_len, context), labels in field.fields.items():
        dense = prepared.control("dense", context)
        for cost in COSTS.values():
            known = [label for label in labels if len(cost_of(prepared, label, seq_len, cost))]
            if known and dense is not None and cost.of_attention:
                known.append(dense)
            out += front(prepared, known, seq_len, context, scale, cost)
    return out


def front(prepared: Prepared, labels: list[str], seq_len: int, context: str, scale: Scale, cost: Cost) -> list[Point]:
    """One front."""
    quality = {label: prepared.quality(label, seq_len, scale) for label in labels}
    price = {label: cost_of(prepared, label, seq_len, cost) for label in labels}
    known = [label for label in labels if len(quality[label]) and len(price[label])]
    margin = prepared.meta.margin.get(scale.metric, 0.0)
    pairs = list(itertools.permutations(known, 2))
    signed = {label: quality[label] * scale.sign for label in known}
    behind = once(apart(signed, pairs), signed)
    dearer = {pair: t_interval(d) for pair, d in apart({label: price[label] for label in known}, pairs).items()}
    out = []
    for label in known:
        others = [other for other in known if other != label]
        rivals = {o: (behind[o, label], dearer[o, label]) for o in others}
        p = domination(rivals, margin)
        over = [other for other, value in p.items() if value < ALPHA]
        safe = all(ahead(behind[label, o], margin) or cheaper(dearer[label, o]) for o in others)
        point = Point(
            label=label,
            seq_len=seq_len,
            context=context,
            metric=scale.metric,
            cost=cost.name,
            quality=float(quality[label].mean()),
            quality_interval=bootstrap_interval(quality[label].to_numpy()),
            price=typical(price[label], cost),
            price_interval=spread(price[label], cost),
            on_front=not over,
            shown=not over and safe,
            dominated_by=tuple(over),
            p=min(p.values(), default=1.0),
        )
        out.append(point)
    return out


def domination(rivals: dict[str, tuple[Array, Interval | None]], margin: float) -> dict[str, float]:
    """The p that each of those which are shown to cost no more does not dominate a condition, corrected over them.

    Args:
        rivals: by how much each is behind the condition, by seed, and the interval by which it is dearer.
    """
    able = {
        name: (behind, dearer) for name, (behind, dearer) in rivals.items() if dearer is not None and dearer[1] <= 0
    }
    p = holm([dominating(behind, dearer, margin) for behind, dearer in able.values()])
    return dict(zip(able, p, strict=True))


def dominating(behind: Array, dearer: Interval | None, margin: float) -> float:
    """p of the hypothesis that one which is no dearer than another does not dominate it.

    It does if it is better; where it is cheaper too, no loss within the margin is enough.
    """
    better = sign_flip(behind) if len(behind) > 1 and behind.mean() < 0 else 1.0
    return min(better, no_loss(behind, margin)) if cheaper(dearer) else better


def ahead(behind: Array, by: float = 0.0) -> bool:
    """Whether a condition is shown to be better than another by more than so much.

    Args:
        behind: how much worse it is, by seed.
    """
    shifted = behind + by
    return len(shifted) > 1 and shifted.mean() < 0 and sign_flip(shifted) < ALPHA


def cheaper(dearer: Interval | None) -> bool:
    """Whether a cost is lower beyond its interval."""
    return dearer is not None and dearer[1] < 0
