"""The best condition at each length, what is tied with it, and the cheapest of those: the recommendation."""

from dataclasses import dataclass

import numpy as np

from dsa.analysis.cost import COSTS, cost_of
from dsa.analysis.prepare import Prepared
from dsa.analysis.ranking import Ranked
from dsa.analysis.scale import Scale
from dsa.analysis.statistics import bootstrap_interval, equivalence, holm, t_test
from dsa.study.power import ALPHA


@dataclass(frozen=True)
class Best:
    """The answer for one length and context; best is None where nothing may be ranked.

    Args:
        tied: not shown to be worse than the best, after Holm's correction over the others; the best not among them.
        equivalent: those of the tied that were shown to lie within the margin of the best.
        recommended: the cheapest of the best and the tied, by operations, then by indexer parameters.
    """

    seq_len: int
    context: str
    metric: str
    best: str | None
    mean: float | None
    interval: tuple[float, float] | None
    tied: tuple[str, ...]
    equivalent: tuple[str, ...]
    recommended: str | None
    sentence: str


def bests(prepared: Prepared, field: Ranked, scale: Scale) -> list[Best]:
    """The best at every length and context that has finished runs."""
    return [
        best(prepared, field[seq_len, context], seq_len, context, scale)
        for seq_len in prepared.lengths
        for context in prepared.contexts
        if prepared.conditions(seq_len, context)
    ]


def best(prepared: Prepared, labels: list[str], seq_len: int, context: str, scale: Scale) -> Best:
    """Among conditions, over the seeds that all of them have.

    The best was chosen for its mean, so that the tests against it lean towards calling others worse.
    """
    values = {label: prepared.quality(label, seq_len, scale) for label in labels}
    values = {label: v for label, v in values.items() if len(v)}
    where = f"At {seq_len}" + (f" ({context})" if context else "")
    seeds = sorted(set.intersection(*(set(v.index) for v in values.values()))) if values else []
    if not seeds:
        nothing = f"{where}: nothing is ranked."
        return Best(seq_len, context, scale.metric, None, None, None, (), (), None, nothing)
    shared = {label: v.loc[seeds].to_numpy() for label, v in values.items()}
    top = min(shared, key=lambda label: scale.sign * shared[label].mean())
    others = [label for label in shared if label != top]
    behind = {label: shared[label] - shared[top] for label in others}
    p = holm([t_test(d) for d in behind.values()])
    margin = prepared.meta.margin.get(scale.metric, 0.0)
    near = holm([equivalence(d, margin) for d in behind.values()])
    equivalent = [label for label, q in zip(others, near, strict=True) if q < ALPHA]
    tied = [label for label, q in zip(others, p, strict=True) if q >= ALPHA or label in equivalent]
    cheapest = min([top, *tied], key=lambda label: price(prepared, label, seq_len))
    return Best(
        seq_len=seq_len,
        context=context,
        metric=scale.metric,
        best=top,
        mean=float(shared[top].mean()),
        interval=bootstrap_interval(shared[top]),
        tied=tuple(tied),
        equivalent=tuple(equivalent),
        recommended=cheapest,
        sentence=f"{where}: {reason(top, cheapest, equivalent, scale, margin, len(seeds))}",
    )


def price(prepared: Prepared, label: str, seq_len: int) -> tuple[float, float, str]:
    """What cheap means: operations, then indexer parameters; unmeasured is dearest."""
    found = [cost_of(prepared, label, seq_len, COSTS[name]) for name in ("flops", "indexer_params")]
    operations, parameters = (float(cost.mean()) if len(cost) else np.inf for cost in found)
    return operations, parameters, label


def reason(top: str, cheapest: str, equivalent: list[str], scale: Scale, margin: float, seeds: int) -> str:
    """What the recommendation rests on."""
    if cheapest == top:
        return f"{top} is best and none that is tied with it is cheaper ({seeds} seeds)."
    if cheapest in equivalent:
        return (
            f"{cheapest}: within {margin:g} {scale.unit} of the best, {top}, and the cheapest that is ({seeds} seeds)."
        )
    return f"{cheapest}: not shown to be worse than the best, {top}, nor shown to equal it ({seeds} seeds)."
