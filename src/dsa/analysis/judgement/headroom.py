"""What there is to gain beyond recency, and the share of it that each condition recovers."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.discriminate import undefeated
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.analysis.statistics.values import Array


@dataclass(frozen=True)
class Headroom:
    """headroom: window less dense, in the metric's unit; recovered: 0 is no better than the nearest keys, 1 is dense.

    Both with 95 % BCa intervals over seeds; recovered is None where window and dense cannot be told apart.
    """

    label: str
    seq_len: int
    metric: str
    seeds: int
    headroom: float
    headroom_interval: tuple[float, float] | None
    recovered: float | None
    recovered_interval: tuple[float, float] | None


def headrooms(prepared: Prepared, scale: Scale) -> list[Headroom]:
    """Headroom and recovered share of every condition, and of the oracle and random controls."""
    return [
        found
        for seq_len in prepared.lengths
        for label in prepared.labels(seq_len)
        if prepared.meta.control(label) not in ("dense", "window")
        and (found := headroom(prepared, label, seq_len, scale)) is not None
    ]


def headroom(prepared: Prepared, label: str, seq_len: int, scale: Scale) -> Headroom | None:
    """Of one condition; None if no seed has it, the window and dense attention."""
    window, dense = prepared.opponent("window", label, seq_len, scale), prepared.dense(label, seq_len, scale)
    columns = {"mine": prepared.quality(label, seq_len, scale), "window": window, "dense": dense}
    values = pd.DataFrame(columns).dropna()
    if values.empty:
        return None
    mine, near, full = (values[name].to_numpy() for name in columns)
    gap = (near - full) * scale.sign
    real = undefeated("window", values["dense"], values["window"], scale) is None
    return Headroom(
        label=label,
        seq_len=seq_len,
        metric=scale.metric,
        seeds=len(values),
        headroom=float(gap.mean()),
        headroom_interval=bootstrap_interval(gap),
        recovered=float(share(near, mine, full)) if real else None,
        recovered_interval=bootstrap_interval(near, mine, full, of=share) if real else None,
    )


def share(near: Array, mine: Array, full: Array, axis: int = -1) -> Array:
    """Mean gain over the window as a share of dense attention's: a ratio of means, steadier than a mean of ratios."""
    return np.mean(near - mine, axis=axis) / np.mean(near - full, axis=axis)
