"""Regret: what one composition loses against the best of each length, and whether one will do everywhere."""

from dataclasses import dataclass

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.ranking import Ranked
from dsa.analysis.statistics.no_loss import no_worse
from dsa.analysis.statistics.paired import paired
from dsa.analysis.statistics.values import ALPHA


@dataclass(frozen=True)
class Regret:
    """One condition over all lengths of a context that can be ranked.

    Args:
        by_length: its mean less the best mean, by length, in the metric's unit; 0 where it is the best.
        largest: the largest of them, and at: the length where.
        p: that it is within the margin of every other condition at every length: an intersection-union test, so that
            the largest p of all needs no correction (Berger 1982).
        everywhere: whether that is shown.
    """

    label: str
    context: str
    metric: str
    by_length: dict[int, float]
    largest: float
    at: int
    p: float
    everywhere: bool


def regrets(prepared: Prepared, field: Ranked, scale: Scale) -> list[Regret]:
    """Every condition that may be ranked at every length of its context, the least regret first."""
    out = []
    for context in prepared.contexts:
        lengths = [length for length in prepared.lengths if field[length, context]]
        common = set.intersection(*(set(field[length, context]) for length in lengths)) if lengths else set()
        out += [
            regret(prepared, field, label, context, lengths, scale)
            for label in prepared.meta.conditions
            if label in common and len(common) > 1
        ]
    return sorted(out, key=lambda one: one.largest)


def regret(
    prepared: Prepared, field: Ranked, label: str, context: str, lengths: list[int], scale: Scale
) -> Regret:  # fmt: skip
    """Of one condition."""
    margin = prepared.meta.margin.get(scale.metric, 0.0)
    by_length, p = {}, 0.0
    for seq_len in lengths:
        mine, most = prepared.quality(label, seq_len, scale), 0.0
        for other in field[seq_len, context]:
            if other == label:
                continue
            loss = paired(mine, prepared.quality(other, seq_len, scale)).to_numpy() * scale.sign
            if not len(loss):  # no seed of both: nothing is shown
                p = 1.0
                continue
            most = max(most, float(loss.mean()))
            p = max(p, no_worse(loss, margin))
        by_length[seq_len] = most
    at = max(by_length, key=lambda length: by_length[length])
    return Regret(label, context, scale.metric, by_length, by_length[at], at, p, p < ALPHA)
