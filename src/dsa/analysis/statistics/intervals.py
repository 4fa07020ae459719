"""95 % intervals: they say how large something is, never whether it is there."""

import warnings
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import special, stats

from dsa.analysis.statistics.values import ALPHA, Array, Interval, constant, standard_error

RESAMPLES = 9999


def bootstrap_interval(*samples: Array, of: Callable = np.mean) -> Interval | None:
    """BCa bootstrap interval of a statistic of values paired by seed; None for fewer than three seeds.

    Where BCa is undefined (too few distinct resamples), the percentile interval stands in for it.
    """
    if len(samples[0]) < 3:
        return None
    if all(constant(sample) for sample in samples):
        value = float(of(*samples, axis=-1))
        return value, value
    return resampled(of, *(tuple(sample.tolist()) for sample in samples))


@lru_cache(maxsize=4096)  # an analysis asks for the same one several times
def resampled(of: Callable, *samples: tuple[float, ...]) -> Interval | None:
    """The interval of values that vary, by resampling."""
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


def t_interval(d: Array) -> Interval | None:
    """t interval of the mean; None for one value."""
    if len(d) < 2:
        return None
    half = 0.0 if constant(d) else float(standard_error(d) * special.stdtrit(len(d) - 1, 1 - ALPHA / 2))
    return float(d.mean()) - half, float(d.mean()) + half


def share_interval(successes: int, trials: int) -> Interval:
    """Clopper and Pearson's exact interval of a share."""
    low = float(stats.beta.ppf(ALPHA / 2, successes, trials - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - ALPHA / 2, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def beyond_zero(d: Array) -> int:
    """The sign of a mean that lies farther from 0 than its intervals reach; 0 if it does not.

    Both intervals have to agree: the bootstrap's is too narrow for few seeds, the t interval's off where seeds fail.
    """
    found = [interval for interval in (t_interval(d), bootstrap_interval(d)) if interval is not None]
    if found and all(low > 0 for low, _ in found):
        return 1
    return -1 if found and all(high < 0 for _, high in found) else 0
