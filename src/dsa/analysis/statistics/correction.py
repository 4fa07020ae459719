"""Many comparisons at once."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    corrected = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    out = np.empty_like(values)
    out[order] = corrected
    return [float(value) for value in out]
