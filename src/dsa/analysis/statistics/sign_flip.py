"""The test that decides: a paired sign-flip randomisation test of the mean difference.

Null hypothesis: within a seed, the two labels are exchangeable, so that every difference could as well have had the
other sign (Fisher 1935, Pitman 1937). It supposes no shape: some seeds may fail, and differences be skewed.
"""

import functools
from typing import Any

import numpy as np

from dsa.analysis.statistics.values import SAME, Array

EXACT = 20  # pairs up to which every flip is counted
DRAWS = 100_000  # flips that are drawn beyond


def sign_flip(d: Array) -> float:
    """Two-sided p of the mean of paired differences; 1 for one pair, or if all differences are 0."""
    if len(d) < 2 or np.abs(d).max() <= SAME:
        return 1.0
    least = abs(d.sum()) - SAME * np.abs(d).sum()  # flips that tie with what was observed may differ in rounding
    if least <= 0:
        return 1.0
    return float(counted(d, least) if len(d) <= EXACT else drawn(d, least))


def counted(d: Array, least: float) -> float:
    """The share of all 2^n flips whose sum is as far from 0: every sum is one of the left half's plus one of the
    right half's, and those are few."""
    left, right = signed_sums(d[: len(d) // 2]), np.sort(signed_sums(d[len(d) // 2 :]))
    above = len(right) * len(left) - int(np.searchsorted(right, least - left).sum())
    return 2 * above / 2 ** len(d)


def signed_sums(values: Array) -> Array:
    """The sums of values under all choices of their signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def drawn(d: Array, least: float | Array) -> Any:
    """The share of drawn flips whose sum is as far from 0, the observed signs counted as one more draw, without which
    p could be 0 (Phipson & Smyth 2010).

    Args:
        d: [seeds], or [seeds, differences] for as many p at once.
    """
    return (1 + np.count_nonzero(np.abs(signs(len(d)) @ d) >= least, axis=0)) / (1 + DRAWS)


@functools.lru_cache(maxsize=2)
def signs(pairs: int) -> Array:
    """The drawn flips, the same for every test of so many pairs."""
    return np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, pairs))
