"""Differences by seed, and seeds that are one measurement told again.

On a given model nothing is drawn where no indexer has a part: dense attention and the controls measure one number
whatever the seed. Between two such, however many seeds there are, one difference was measured.
"""

import pandas as pd

from dsa.analysis.statistics.values import Array, constant


def paired(mine: pd.Series, theirs: pd.Series) -> pd.Series:
    """Mine less theirs over the seeds of both; the first seed alone where each is one number for all seeds, another.

    Two that agree in every seed may also have solved a task each time, which is no copy.
    """
    both = pd.DataFrame({"mine": mine, "theirs": theirs}).dropna()
    d = both["mine"] - both["theirs"]
    return d.iloc[:1] if d.any() and one_number(both["mine"].to_numpy(), both["theirs"].to_numpy()) else d


def one_number(*sides: Array) -> bool:
    """Whether each of several conditions measured the same in every seed, of at least two."""
    return all(len(side) > 1 and constant(side) for side in sides)
