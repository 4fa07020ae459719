"""How much of what differs between runs lies between bases, and how much between the draws of indexers on one base.

One-way random effects (Shrout and Fleiss 1979, ICC(1)): a base has an effect of its own, and so has each draw in it.
The interval of the share is exact where both are normal; where few draws fail it is a rough guide.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from dsa.analysis.statistics.values import ALPHA, SAME, Array, Interval


@dataclass(frozen=True)
class ByDraw:
    """A measure by base and draw.

    Args:
        between: standard deviation of the bases' effects, in the measure's unit.
        within: that of draws on one base.
        share: of the variance of a single run, what lies within bases, between draws (0 to 1); None where nothing
            varies.
        interval: of that share, 95 %.
    """

    bases: int
    draws: int
    mean: float
    between: float
    within: float
    share: float | None
    interval: Interval | None


def by_draw(x: Array) -> ByDraw:
    """All that is said about a measure that several draws on each base have.

    Args:
        x: measures [base, draw], at least two of each.

    Raises:
        ValueError: there are fewer.
    """
    bases, draws = x.shape
    if bases < 2 or draws < 2:
        raise ValueError(f"{bases} x {draws} runs: at least 2 seeds with at least 2 draws each are needed.")
    of_bases = x.mean(1)
    ms_bases = draws * float(of_bases.var(ddof=1))
    ms_draws = float(((x - of_bases[:, None]) ** 2).sum()) / (bases * (draws - 1))
    between = max(ms_bases - ms_draws, 0.0) / draws
    told = (bases, draws, float(x.mean()), float(np.sqrt(between)), float(np.sqrt(ms_draws)))
    if between + ms_draws <= SAME:
        return ByDraw(*told, None, None)
    share, interval = ms_draws / (between + ms_draws), (0.0, 0.0)
    if ms_draws > SAME:
        ratio, free = ms_bases / ms_draws, (bases - 1, bases * (draws - 1))
        low = ratio / float(stats.f.ppf(1 - ALPHA / 2, *free))
        high = ratio * float(stats.f.ppf(1 - ALPHA / 2, *reversed(free)))
        interval = (within_of(high, draws), within_of(low, draws))
    return ByDraw(*told, share, interval)


def within_of(ratio: float, draws: int) -> float:
    """The share within bases that belongs to a ratio of mean squares."""
    return float(np.clip(draws / (ratio + draws - 1), 0.0, 1.0))
