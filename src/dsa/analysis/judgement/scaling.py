"""How cost and quality differences grow with length and with model size.

The unit stays the seed: a line is fitted to each seed's own values, and the interval is over the seeds' slopes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.inputs.timing import machines
from dsa.analysis.judgement.discriminate import Discrimination, rankable
from dsa.analysis.statistics.intervals import t_interval


@dataclass(frozen=True)
class Fit:
    """A slope over the doublings of something.

    Args:
        what: a cost (its exponent: 1 grows in proportion, 2 with the square), or the metric (change of the difference
            from the baseline with each doubling, in the metric's unit).
        along: length, or model parameters.
        levels: the values of it that were fitted.
        interval: 95 % t interval over seeds; of no width for what is counted rather than measured.
    """

    label: str
    what: str
    along: str
    levels: tuple[float, ...]
    seeds: int
    slope: float
    interval: tuple[float, float] | None


def scaling(prepared: Prepared, scale: Scale, found: list[Discrimination]) -> list[Fit]:
    """Fits over at least three lengths or model sizes; quality only where ranking is allowed."""
    return along_length(prepared, scale, found) + along_size(prepared, scale, found)


def along_length(prepared: Prepared, scale: Scale, found: list[Discrimination]) -> list[Fit]:
    """Each condition over the lengths."""
    out = []
    for label in prepared.meta.conditions:
        here = [length for length in prepared.lengths if label in prepared.conditions(length)]
        for cost in (COSTS["flops"], COSTS["step_ms"], COSTS["memory_mb"]):
            if cost.timed and len(machines(prepared.timing)) > 1:
                continue
            values = {float(length): np.log2(cost_of(prepared, label, length, cost)) for length in here}
            out.append(fit(label, cost.name, "length", values))
        places = [length for length in here if (length, prepared.meta.context(label)) in rankable(found)]
        if label != prepared.meta.reference(label):
            out.append(fit(label, scale.metric, "length", {float(n): gap(prepared, label, n, scale) for n in places}))
    return [one for one in out if one is not None]


def along_size(prepared: Prepared, scale: Scale, found: list[Discrimination]) -> list[Fit]:
    """What a condition compares, over the models in which it was compared, at each length."""
    meta = prepared.meta
    families: dict[str, list[str]] = {}
    for label in meta.conditions:
        if len(prepared.contexts) > 1 and label != meta.reference(label):
            families.setdefault("-".join(map(str, meta.options(label).values())), []).append(label)
    out = []
    for name, labels in families.items():
        for length in prepared.lengths:
            values = {
                backbone(prepared, label, length): gap(prepared, label, length, scale)
                for label in labels
                if label in prepared.conditions(length) and (length, meta.context(label)) in rankable(found)
            }
            out.append(fit(f"{name} at {length}", scale.metric, "model parameters", values))
    return [one for one in out if one is not None]


def backbone(prepared: Prepared, label: str, length: int) -> float:
    """Parameters of the model without its indexers; nan if unknown."""
    return float(
        (prepared.column(label, length, "params.total") - prepared.column(label, length, "params.indexer")).mean()
    )


def gap(prepared: Prepared, label: str, length: int, scale: Scale) -> pd.Series:
    """A condition's difference from its baseline, by seed."""
    theirs = prepared.quality(prepared.meta.reference(label), length, scale)
    return (prepared.quality(label, length, scale) - theirs).dropna()


def fit(label: str, what: str, along: str, values: dict[float, pd.Series]) -> Fit | None:
    """Least squares over the doublings of the levels, seed by seed; None for fewer than three levels or no seed."""
    levels = sorted(level for level, v in values.items() if np.isfinite(level) and len(v))
    if len(levels) < 3:
        return None
    table = pd.DataFrame({level: values[level] for level in levels}).dropna()
    if table.empty:
        return None
    slopes = np.polyfit(np.log2(levels), table.to_numpy().T, 1)[0]
    return Fit(label, what, along, tuple(levels), len(slopes), float(slopes.mean()), t_interval(slopes))
