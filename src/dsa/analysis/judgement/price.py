"""One number for a condition's cost, and how sure it is."""

import pandas as pd

from dsa.analysis.inputs.cost import Cost
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.analysis.statistics.values import Interval


def typical(values: pd.Series, cost: Cost) -> float:
    """One number for a condition's cost: the mean over seeds, of times the median over turns."""
    return float(values.median() if cost.timed else values.mean())


def spread(values: pd.Series, cost: Cost) -> Interval | None:
    """How sure it is: 95 % BCa interval over seeds, of times the least and the greatest turn."""
    if cost.timed:
        return (float(values.min()), float(values.max())) if len(values) > 1 else None
    return bootstrap_interval(values.to_numpy())
