"""How many keys a query may spend, and the controls that replace the index score."""

from dsa.selectors.adaptive import AdaptiveDynamic, AdaptiveEntropy, AdaptivePosition
from dsa.selectors.base import Selector, SelectorContext
from dsa.selectors.controls import Dense, Oracle, Random, SinkWindow, Window
from dsa.selectors.nearest import NearestInstead
from dsa.selectors.progressive import ProgressiveCosine, ProgressiveExponential, ProgressiveLinear
from dsa.selectors.ratio import Ratio
from dsa.selectors.topk import TopK

__all__ = [
    "AdaptiveDynamic",
    "AdaptiveEntropy",
    "AdaptivePosition",
    "Dense",
    "NearestInstead",
    "Oracle",
    "ProgressiveCosine",
    "ProgressiveExponential",
    "ProgressiveLinear",
    "Random",
    "Ratio",
    "Selector",
    "SelectorContext",
    "SinkWindow",
    "TopK",
    "Window",
]
