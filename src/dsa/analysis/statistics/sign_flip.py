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
    return sign_flips(d[None])[0]


def sign_flips(rows: Array) -> list[float]:
    """The p of each row of paired differences, [differences, seeds]."""
    seeds = rows.shape[1]
    if seeds < 2:
        return [1.0] * len(rows)
    whole = np.abs(rows).sum(1)
    least = np.abs(rows.sum(1)) - SAME * whole  # flips that tie with what was observed may differ in rounding
    least[np.abs(rows).max(1) <= SAME] = 0.0
    if seeds > EXACT:
        return [1.0 if one <= 0 else float(drawn(row, one)) for row, one in zip(rows, least, strict=True)]
    left, right = signed_sums(rows[:, : seeds // 2]), np.sort(signed_sums(rows[:, seeds // 2 :]), axis=1)
    halves = zip(left, right, least, strict=True)
    return [1.0 if one <= 0 else counted(few, others, one) for few, others, one in halves]


def counted(left: Array, right: Array, least: float) -> float:
    """The share of all 2^n flips whose sum is as far from 0: every sum is one of the left half's plus one of the
    right half's, and those are few.

    Args:
        right: sorted.
    """
    whole = len(right) * len(left)
    return 2 * (whole - int(np.searchsorted(right, least - left).sum())) / whole


def signed_sums(values: Array) -> Array:
    """The sums of values under all choices of their signs, [rows, values] -> [rows, 2^values]."""
    sums = np.zeros((len(values), 1))
    for value in values.T[:, :, None]:
        sums = np.concatenate([sums + value, sums - value], axis=1)
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
