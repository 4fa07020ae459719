"""The test of no loss: the mean lies within the margin, and so do most seeds.

Both are asked for. Two one-sided t tests alone are wrong far more often than they promise where some seeds fail, and
a mean says nothing about the seed that a user will draw: so more than four fifths of seeds have to lie within the
margin too (individual equivalence, Anderson & Hauck 1990), by an exact binomial test.

What is guaranteed whatever the shape is what the binomial test says: more than four fifths of all seeds lie within the
margin, with an error of at most 5 %. What the t tests say of the mean holds where differences are near to Gaussian,
skewed like an exponential, or where a fifth of all seeds and more fails. Where fewer fail, and by many margins, the
mean may lie beyond the margin all the same: with a tenth failing at ten margins, so that the mean is just the margin,
30 seeds show no loss in 18 % of studies of one comparison, for so often at most one of them fails. No test of a mean
can do better without a bound on what is lost (Bahadur & Savage 1956), and with chance for a bound none has any power
here. So what less than a fifth of all seeds may lose stays open, and the worst seed measured stands beside every claim.
"""

import numpy as np
from scipy import special, stats

from dsa.analysis.statistics.values import SHARE, Array, constant, standard_error


def no_loss(d: Array, margin: float) -> float:
    """p of the hypothesis that a difference is not within +-margin: the larger of both tests'."""
    return max(mean_within(d, margin), seeds_within(d, margin))


def mean_within(d: Array, margin: float) -> float:
    """p of two one-sided t tests: the mean lies outside +-margin. 1 for one pair or without a margin.

    Differences that do not vary have no t statistic: then 2^-n if they lie within, as a sign test would say.
    """
    if len(d) < 2 or margin <= 0:
        return 1.0
    if constant(d):
        return 2.0 ** -len(d) if abs(d.mean()) < margin else 1.0
    return max(mean_below(d, margin), mean_below(-d, margin))


def mean_below(d: Array, bound: float) -> float:
    """p of a one-sided t test: the mean is not below the bound."""
    return float(special.stdtr(len(d) - 1, (d.mean() - bound) / standard_error(d)))


def seeds_within(d: Array, margin: float) -> float:
    """p of an exact binomial test: at most four fifths of all seeds lie within +-margin. 1 without a margin."""
    if not len(d) or margin <= 0:
        return 1.0
    within = int(np.count_nonzero(np.abs(d) <= margin))
    return float(stats.binom.sf(within - 1, len(d), SHARE))


def no_worse(loss: Array, margin: float) -> float:
    """p of the hypothesis that more than the margin is lost: as `no_loss`, on the side of losing alone.

    Args:
        loss: positive where something is lost.
    """
    if len(loss) < 2 or margin <= 0:
        return 1.0
    successes = int(np.count_nonzero(loss <= margin))
    seeds = float(stats.binom.sf(successes - 1, len(loss), SHARE))
    if constant(loss):
        return max(seeds, 2.0 ** -len(loss) if loss.mean() < margin else 1.0)
    return max(seeds, mean_below(loss, margin))
