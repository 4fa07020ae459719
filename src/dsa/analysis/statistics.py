"""Paired differences between conditions. The unit is the seed; everything here works on one number a seed.

A difference that does not vary between seeds has no t statistic. Rule: it is judged by the exact sign-flip test alone,
two-sided p = 2^(1-n) if it is not zero and 1 if it is; its interval is the difference itself; its effect size is
undefined unless it is zero; and it lies within a margin, with p = 2^-n, if it is smaller than the margin.
"""

import functools
import gc
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from dsa.study.power import ALPHA, smallest_p, visible_effect

Array = NDArray[np.float64]
RESAMPLES = 9999
EXACT = 16  # pairs up to which all sign flips are counted; beyond, 9999 of them are drawn
SAME = 1e-12  # spread, relative to the values, below which differences count as constant


def constant(d: Array) -> bool:
    """Whether differences do not vary between seeds."""
    return bool(np.ptp(d) <= SAME * max(1.0, float(np.abs(d).max())))


def t_test(d: Array) -> float:
    """Two-sided p of the paired t test; the rule above where the difference is constant. 1 for one pair."""
    if len(d) < 2:
        return 1.0
    if constant(d):
        return smallest_p(len(d)) if abs(d.mean()) > SAME else 1.0
    return float(stats.ttest_1samp(d, 0.0).pvalue)


def sign_flip(d: Array) -> float:
    """Two-sided p of the sign-flip permutation test of the mean: exact up to 16 pairs."""
    if len(d) < 2:
        return 1.0
    count = 2 ** len(d) if len(d) <= EXACT else RESAMPLES
    done = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=count, batch=4096, axis=-1,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(done.pvalue)


def equivalence(d: Array, margin: float) -> float:
    """p of two one-sided t tests: the true difference lies outside +-margin. 1 for one pair or without a margin."""
    if len(d) < 2 or margin <= 0:
        return 1.0
    if constant(d):
        return 2.0 ** -len(d) if abs(d.mean()) < margin else 1.0
    above = stats.ttest_1samp(d, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(d, margin, alternative="less").pvalue
    return float(max(above, below))


def bootstrap_interval(*samples: Array, of=np.mean) -> tuple[float, float] | None:
    """95 % BCa bootstrap interval of a statistic of values paired by seed; None for fewer than three seeds.

    Where BCa is undefined (too few distinct resamples), the percentile interval stands in for it.
    """
    if len(samples[0]) < 3:
        return None
    if all(constant(sample) for sample in samples):
        value = float(of(*samples, axis=-1))
        return value, value
    for method in ("BCa", "percentile"):
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            done = stats.bootstrap(
                samples, of, paired=True, vectorized=True, n_resamples=RESAMPLES, method=method,
                confidence_level=1 - ALPHA, rng=np.random.default_rng(0),
            )  # fmt: skip
        low, high = (float(bound) for bound in done.confidence_interval)
        if np.isfinite([low, high]).all():
            return low, high
    return None


def t_interval(d: Array) -> tuple[float, float] | None:
    """95 % t interval of the mean; None for one value."""
    if len(d) < 2:
        return None
    half = 0.0 if constant(d) else float(stats.sem(d) * stats.t.ppf(1 - ALPHA / 2, len(d) - 1))
    return float(d.mean()) - half, float(d.mean()) + half


def effect_size(d: Array) -> float | None:
    """Mean difference in standard deviations of the paired difference; None where that is undefined."""
    if len(d) < 2:
        return None
    if constant(d):
        return 0.0 if abs(d.mean()) <= SAME else None
    return float(d.mean() / d.std(ddof=1))


def holm(p: list[float]) -> list[float]:
    """p values corrected for their number by Holm's method."""
    if not p:
        return []
    gc.freeze()  # statsmodels collects garbage at every call: half a second of searching all that torch imported
    try:
        return [float(value) for value in multipletests(p, alpha=ALPHA, method="holm")[1]]
    finally:
        gc.unfreeze()


@functools.cache
def visible(seeds: int, comparisons: int) -> float:
    """Smallest effect seen with 80 % power after correction [standard deviations of the difference]."""
    return visible_effect(seeds, comparisons)


@dataclass(frozen=True)
class Difference:
    """A paired difference, uncorrected. interval: BCa bootstrap; detectable: in the metric's unit."""

    seeds: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    t_interval: tuple[float, float] | None
    p: float
    p_sign_flip: float
    p_equivalence: float
    effect: float | None
    detectable: float | None


def difference(d: Array, margin: float, comparisons: int = 1) -> Difference:
    """All that is said about one paired difference.

    Args:
        d: one difference a seed.
        margin: largest difference that counts as none; 0 if none was declared.
        comparisons: how many the correction counts, for the effect that could be seen.
    """
    sd = float(d.std(ddof=1)) if len(d) > 1 else None
    return Difference(
        seeds=len(d),
        mean=float(d.mean()),
        sd=sd,
        interval=bootstrap_interval(d),
        t_interval=t_interval(d),
        p=t_test(d),
        p_sign_flip=sign_flip(d),
        p_equivalence=equivalence(d, margin),
        effect=effect_size(d),
        detectable=None if sd is None else sd * visible(len(d), comparisons),
    )
