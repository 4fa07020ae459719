"""What there is to gain beyond a selection that learns nothing, and the share of it that each condition recovers.

The opponent is the same for all conditions of a study, at its own budget: the nearest keys or, for a pretrained model,
which leans on its first tokens (Xiao et al. 2023, attention sinks), the first keys and the nearest. Losses count no
more than chance. Where the study cannot tell good from bad there is no share to speak of.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale, scale_of
from dsa.analysis.judgement.discriminate import capped, discriminate, rankable, undefeated
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.analysis.statistics.values import Array

MEANINGS = {"window": "the nearest keys", "sink_window": "the first keys and the nearest"}


@dataclass(frozen=True)
class Headroom:
    """headroom: opponent less dense, in the metric's unit; recovered: 0 is no better than the opponent, 1 is dense.

    Both with 95 % BCa intervals over seeds.

    Args:
        opponent: kind of the control that the share is measured from.
    """

    label: str
    seq_len: int
    metric: str
    opponent: str
    seeds: int
    headroom: float
    headroom_interval: tuple[float, float] | None
    recovered: float
    recovered_interval: tuple[float, float] | None


def opponent(prepared: Prepared) -> str:
    """The control that a study's shares are measured from."""
    return "sink_window" if prepared.pretrained else "window"


def headrooms(prepared: Prepared, scale: Scale) -> list[Headroom]:
    """Headroom and recovered share of conditions and controls, where the study can discriminate on its own metric."""
    places = rankable(discriminate(prepared, scale_of(prepared.meta.metric)))
    return [
        found
        for seq_len in prepared.lengths
        for label in prepared.labels(seq_len)
        if prepared.meta.control(label) not in ("dense", opponent(prepared))
        and (seq_len, prepared.meta.context(label)) in places
        and (found := headroom(prepared, label, seq_len, scale)) is not None
    ]


def headroom(prepared: Prepared, label: str, seq_len: int, scale: Scale) -> Headroom | None:
    """Of one condition; None if no seed has it, opponent and dense attention, or dense does not beat the opponent."""
    kind = opponent(prepared)
    control = prepared.control(kind, prepared.meta.context(label))
    if control is None:
        return None
    columns = {
        "mine": prepared.quality(label, seq_len, scale),
        "near": prepared.quality(control, seq_len, scale),
        "full": prepared.dense(label, seq_len, scale),
    }
    values = pd.DataFrame({name: capped(prepared, label, seq_len, scale, of) for name, of in columns.items()}).dropna()
    margin = prepared.meta.margin.get(scale.metric, 0.0)
    if values.empty or undefeated(kind, values["full"], values["near"], scale, margin) is not None:
        return None
    mine, near, full = (values[name].to_numpy() for name in columns)
    gap = (near - full) * scale.sign
    return Headroom(
        label=label,
        seq_len=seq_len,
        metric=scale.metric,
        opponent=kind,
        seeds=len(values),
        headroom=float(gap.mean()),
        headroom_interval=bootstrap_interval(gap),
        recovered=float(share_recovered(near, mine, full)),
        recovered_interval=bootstrap_interval(near, mine, full, of=share_recovered),
    )


def share_recovered(near: Array, mine: Array, full: Array, axis: int = -1) -> Array:
    """Mean gain over the opponent as a share of dense attention's: a ratio of means, steadier than a mean of ratios."""
    return np.mean(near - mine, axis=axis) / np.mean(near - full, axis=axis)
