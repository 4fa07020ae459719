"""What a number of seeds can show: the smallest p of an exact test, and the effect a paired test would see."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch

ALPHA = 0.05


def smallest_p(seeds: int) -> float:
    """Least two-sided p that an exact sign-flip test of this many pairs can reach."""
    return min(1.0, 2.0 ** (1 - seeds))


def seeds_needed(comparisons: int) -> int:
    """Fewest seeds whose exact test can stay significant after Holm's correction over so many comparisons."""
    seeds = 2
    while smallest_p(seeds) * max(comparisons, 1) > ALPHA:
        seeds += 1
    return seeds


def exceeds(t: float, shift: float, freedom: int) -> float:
    """P(T > t) for Student's t with a shift (non-centrality), by integrating over the estimated deviation."""
    s = np.linspace(1e-4, 4.0, 4000)  # s = sqrt(chi2 / freedom)
    log_density = (freedom - 1) * np.log(s) - freedom * s**2 / 2
    weight = np.exp(log_density - log_density.max())
    tail = 0.5 * torch.erfc(torch.from_numpy((t * s - shift) / math.sqrt(2))).numpy()
    return float((tail * weight).sum() / weight.sum())


def bisect(increasing: Callable[[float], float], low: float, high: float, target: float) -> float:
    """Where an increasing function reaches a target."""
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < target else (low, middle)
    return high


@functools.cache
def visible_effect(seeds: int, comparisons: int = 1) -> float:
    """Smallest effect seen with 80 % power by a paired t-test, corrected [standard deviations of the difference].

    Infinite for fewer than two seeds.
    """
    if seeds < 2:
        return math.inf
    freedom, alpha = seeds - 1, ALPHA / max(comparisons, 1)
    critical = bisect(lambda t: -exceeds(t, 0.0, freedom), 0.0, 1e4, -alpha / 2)
    return bisect(lambda d: exceeds(critical, d * math.sqrt(seeds), freedom), 0.0, 1e4, 0.8)
