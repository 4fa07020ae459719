"""Whether a condition fails by its base or by the initial weights of its indexers: several draws on each base."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.results import every_run
from dsa.analysis.inputs.scale import Scale, scale_of
from dsa.analysis.statistics.by_draw import ByDraw, by_draw


@dataclass(frozen=True)
class Drawn:
    """What a condition loses against dense attention on the same base, by base and draw.

    Args:
        hold: numbers of bases of which all draws, some and none lose no more than the study's margin; None without one.
    """

    label: str
    seq_len: int
    metric: str
    found: ByDraw
    hold: tuple[int, int, int] | None


def drawn(meta: Meta, results: list[dict[str, Any] | None], metric: str) -> list[Drawn]:
    """Every condition at every length whose indexers were drawn several times on each base; bases that lack a draw are
    left out.

    Raises:
        ValueError: there is none, or the metric is no quality.
    """
    scale = scale_of(metric)
    frame, _ = every_run(meta, results)
    out = []
    for seq_len in sorted(frame["seq_len"].unique()):
        for label in meta.conditions:
            lost = by_base(frame[(frame["label"] == label) & (frame["seq_len"] == seq_len)], scale)
            if min(lost.shape) > 1:
                out.append(Drawn(label, int(seq_len), metric, by_draw(lost), holding(lost, meta.margin.get(metric))))
    if not out:
        raise ValueError("indexer_seed: no condition here drew its indexers twice on each of two bases; list several.")
    return out


def by_base(runs: pd.DataFrame, scale: Scale) -> np.ndarray:
    """What runs lose against dense attention [base, draw]."""
    lost = scale.sign * (runs[scale.metric].astype(float) - runs[scale.dense].astype(float))
    table = lost.set_axis(pd.MultiIndex.from_frame(runs[["seed", "indexer_seed"]])).dropna()
    bases = [one.to_numpy() for _, one in table.groupby(level=0)]
    most = max(map(len, bases), default=0)
    full = [one for one in bases if len(one) == most]
    return np.array(full).reshape(len(full), most)


def holding(lost: np.ndarray, margin: float | None) -> tuple[int, int, int] | None:
    """Bases of which all draws, some and none keep to a margin."""
    if margin is None:
        return None
    held = (lost <= margin).sum(1)
    return int((held == lost.shape[1]).sum()), int(((held > 0) & (held < lost.shape[1])).sum()), int((held == 0).sum())
