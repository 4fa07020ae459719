"""What a number of seeds can show by the rule that decides: the sign-flip test, corrected by Holm.

A planner asks it before anything runs, and an analysis to say what it could have seen.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from dsa.analysis.statistics.sign_flip import sign_flips
from dsa.analysis.statistics.values import ALPHA, SHARE

POWER = 0.8
STUDIES = 400  # simulated ones
FINE = 16  # p values that survive, from which on their steps cost no power


def smallest_p(seeds: int) -> float:
    """Least two-sided p that an exact sign-flip test of this many pairs can reach."""
    return min(1.0, 2.0 ** (1 - seeds))


def enough(seeds: int, comparisons: int) -> bool:
    """Whether so many seeds can show a difference: their test could stay significant after correction."""
    return seeds >= 2 and smallest_p(seeds) * max(comparisons, 1) <= ALPHA


def seeds_needed(comparisons: int) -> int:
    """Fewest seeds that can show a difference after correction over so many comparisons."""
    return next(seeds for seeds in range(2, 1000) if enough(seeds, comparisons))


def carries_no_claim(seeds: int, comparisons: int) -> str:
    """That so few seeds can show no difference after correction, in words."""
    few = "one seed carries" if seeds == 1 else f"{seeds} seeds carry"
    over = "a difference" if comparisons == 1 else f"{comparisons} comparisons"
    return f"{few} no claim over {over}, {seeds_needed(comparisons)} are needed"


def seeds_for_no_loss(comparisons: int) -> int:
    """Fewest seeds that can show no loss after correction over so many comparisons, if all lie within the margin."""
    return math.ceil(math.log(ALPHA / max(comparisons, 1)) / math.log(SHARE))


@functools.cache
def visible_effect(seeds: int, comparisons: int = 1) -> float:
    """Smallest effect seen with 80 % power after correction [standard deviations of a Gaussian paired difference].

    By simulating the test where few of its possible p values survive correction, which costs power; elsewhere by the
    t test's formula, whose power is then the same within 1 %. Infinite where so few seeds can show nothing.
    """
    if not enough(seeds, comparisons):
        return math.inf
    alpha = ALPHA / max(comparisons, 1)
    least = visible_by_t(seeds, alpha)
    if smallest_p(seeds) * FINE <= alpha:
        return least
    noise = np.random.default_rng(0).normal(0.0, 1.0, (STUDIES, seeds))
    share = lambda effect: float(np.mean(np.array(sign_flips(noise + effect)) <= alpha))
    return bisect(share, 0.5 * least, 3 * least + 1, POWER, rounds=10)


def visible_by_t(seeds: int, alpha: float) -> float:
    """The same for a t test at a level."""
    freedom = seeds - 1
    critical = bisect(lambda t: -exceeds(t, 0.0, freedom), 0.0, 1e4, -alpha / 2)
    return bisect(lambda d: exceeds(critical, d * math.sqrt(seeds), freedom), 0.0, 1e4, POWER)


def exceeds(t: float, shift: float, freedom: int) -> float:
    """P(T > t) for Student's t with a shift (non-centrality), by integrating over the estimated deviation."""
    s = np.linspace(1e-4, 4.0, 4000)  # s = sqrt(chi2 / freedom)
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    weight = np.exp(log_density - log_density.max())
    return float((ndtr(shift - t * s) * weight).sum() / weight.sum())


def bisect(increasing: Callable[[float], float], low: float, high: float, target: float, rounds: int = 40) -> float:
    """Where an increasing function reaches a target."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return high
