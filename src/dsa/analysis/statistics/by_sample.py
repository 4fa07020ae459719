"""The interval of a difference that every seed measures on the same samples, as rows that ask for something.

Samples within a seed are no independent observations: they share the seed's base and indexers; and the same sample
under other seeds is the same question. So both seeds and samples have effects of their own (crossed random effects).
The variance of the mean is (MS_seeds + MS_samples - MS_rest) / (seeds * samples), its freedom Satterthwaite's. It is
never taken to be less than that of the seeds' own means, which is what a paired t interval has.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from dsa.analysis.statistics.values import ALPHA, SAME, Array, Interval


@dataclass(frozen=True)
class BySample:
    """A paired difference by seed and sample.

    Args:
        interval: 95 %, of other seeds and other samples; None for one seed or one sample.
        within: share of the variance of a single difference that lies within seeds, between their samples (0 to 1);
            None where nothing varies.
        by_seed: the mean of each seed.
    """

    seeds: int
    samples: int
    mean: float
    interval: Interval | None
    within: float | None
    by_seed: tuple[float, ...]


def by_sample(d: Array) -> BySample:
    """All that is said about a difference that seeds measure on the same samples.

    Args:
        d: differences [seed, sample].
    """
    seeds, samples = d.shape
    mean, of_seeds, of_samples = float(d.mean()), d.mean(1), d.mean(0)
    told = (seeds, samples, mean)
    if seeds < 2 or samples < 2:
        return BySample(*told, None, None, tuple(map(float, of_seeds)))
    rest = d - of_seeds[:, None] - of_samples + mean
    ms_seeds = samples * float(of_seeds.var(ddof=1))
    ms_samples = seeds * float(of_samples.var(ddof=1))
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (samples - 1))
    more = max(ms_samples - ms_rest, 0.0)  # what samples add
    interval = (mean, mean)
    if ms_seeds + more > SAME:
        parts = ms_seeds**2 / (seeds - 1)
        if more:
            parts += ms_samples**2 / (samples - 1) + ms_rest**2 / ((seeds - 1) * (samples - 1))
        freedom = max((ms_seeds + more) ** 2 / parts, 1.0)
        half = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * np.sqrt((ms_seeds + more) / d.size)
        interval = (mean - float(half), mean + float(half))
    between = max(ms_seeds - ms_rest, 0.0) / samples
    inside = ms_rest + more / seeds
    whole = between + inside
    return BySample(*told, interval, inside / whole if whole > SAME else None, tuple(map(float, of_seeds)))
