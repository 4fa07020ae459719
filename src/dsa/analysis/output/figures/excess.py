"""What a selection loses beyond the keys of highest attention at the same budget, seed by seed."""

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures.places import Place, labels, places

LEFT_OUT = ("dense", "oracle")
"""Controls that it does not tell of: the one has no budget, the other no excess."""


def excess(prepared: Prepared, label: str, place: Place) -> pd.Series:
    """By seed: what a condition or control loses beyond the oracle; empty without one."""
    scale = scale_of(prepared.meta.metric)
    oracle = prepared.control("oracle", place[1])
    if oracle is None:
        return pd.Series(dtype=float)
    mine, best = (prepared.quality(one, place[0], scale) for one in (label, oracle))
    return ((mine - best) * scale.sign).dropna()


def of_conditions(analysis: Analysis) -> dict[Place, dict[str, pd.Series]]:
    """The excess of every condition, where something may be ranked."""
    open_ = rankable(analysis.discrimination)
    out = {
        place: {
            label: values
            for label in labels(analysis, place)
            if label in analysis.prepared.meta.conditions and len(values := excess(analysis.prepared, label, place))
        }
        for place in places(analysis)
        if place in open_
    }
    return {place: found for place, found in out.items() if found}
