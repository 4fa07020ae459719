"""All that is said about one paired difference."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from dsa.analysis.statistics.intervals import bootstrap_interval, share_interval, t_interval
from dsa.analysis.statistics.no_loss import no_loss, no_worse
from dsa.analysis.statistics.power import smallest_p, visible_effect
from dsa.analysis.statistics.sign_flip import sign_flip
from dsa.analysis.statistics.values import SAME, Array, Interval, constant, standard_error


@dataclass(frozen=True)
class Difference:
    """A paired difference, uncorrected: condition less reference.

    Args:
        interval: BCa bootstrap.
        p: of the sign-flip test, which decides.
        p_t: of the paired t test, which decides nothing.
        p_no_loss: of the tests of no loss; p_lossless: that no more than the margin is lost; 1 without a margin.
        effect: mean in standard deviations; None where those are 0.
        detectable: smallest effect that the seeds could have shown [the metric's unit]; None if none.
        within: seeds within the margin either way; None without a margin.
        successes, success_rate, success_interval: seeds that lose no more than the margin, their share, and its
            Clopper-Pearson interval; None without a margin.
        worst_seed, worst: the seed that loses most, and its difference.
    """

    seeds: int
    mean: float
    sd: float | None
    interval: Interval | None
    t_interval: Interval | None
    p: float
    p_t: float
    p_no_loss: float
    p_lossless: float
    effect: float | None
    detectable: float | None
    within: int | None
    successes: int | None
    success_rate: float | None
    success_interval: Interval | None
    worst_seed: int
    worst: float

    def told(self, unit: str) -> str:
        """Its size with its interval, in a sentence."""
        bounds = f" [{self.interval[0]:+.4g}, {self.interval[1]:+.4g}]" if self.interval else ""
        return f"{self.mean:+.4g} {unit}{bounds}"


def difference(by_seed: pd.Series, margin: float, comparisons: int = 1, sign: int = 1) -> Difference:
    """All that is said about one paired difference.

    Args:
        by_seed: one difference a seed.
        margin: largest difference that counts as none; 0 if none was declared.
        comparisons: how many the correction counts, for the effect that could be seen.
        sign: 1 where less is better, -1 where more is.
    """
    d = by_seed.to_numpy(dtype=float)
    sd = float(d.std(ddof=1)) if len(d) > 1 else None
    effect = visible_effect(len(d), comparisons)
    successes = int(np.count_nonzero(sign * d <= margin)) if margin > 0 else None
    worst = int(np.argmax(sign * d))
    return Difference(
        seeds=len(d),
        mean=float(d.mean()),
        sd=sd,
        interval=bootstrap_interval(d),
        t_interval=t_interval(d),
        p=sign_flip(d),
        p_t=t_test(d),
        p_no_loss=no_loss(d, margin),
        p_lossless=no_worse(sign * d, margin),
        effect=effect_size(d),
        detectable=None if sd is None or math.isinf(effect) else sd * effect,
        within=int(np.count_nonzero(np.abs(d) <= margin)) if margin > 0 else None,
        successes=successes,
        success_rate=None if successes is None else successes / len(d),
        success_interval=None if successes is None else share_interval(successes, len(d)),
        worst_seed=int(by_seed.index[worst]),
        worst=float(d[worst]),
    )


def t_test(d: Array) -> float:
    """Two-sided p of the paired t test; 1 for one pair. Where differences do not vary, the sign-flip test's."""
    if len(d) < 2:
        return 1.0
    if constant(d):
        return smallest_p(len(d)) if abs(d.mean()) > SAME else 1.0
    return float(2 * special.stdtr(len(d) - 1, -abs(d.mean()) / standard_error(d)))


def effect_size(d: Array) -> float | None:
    """Mean difference in standard deviations of the paired difference; None where that is undefined."""
    if len(d) < 2:
        return None
    if constant(d):
        return 0.0 if abs(d.mean()) <= SAME else None
    return float(d.mean() / d.std(ddof=1))
