"""One number a seed, and when several of them count as the same."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]
ALPHA = 0.05
SHARE = 0.8  # of seeds, more than which have to lie within the margin for no loss
SAME = 1e-12  # spread, relative to the values, below which they count as constant


def constant(d: Array) -> bool:
    """Whether values do not vary between seeds."""
    return bool(np.ptp(d) <= SAME * max(1.0, float(np.abs(d).max())))


def standard_error(d: Array) -> float:
    """Of the mean."""
    return float(d.std(ddof=1)) / len(d) ** 0.5
