"""Rules over positions alone: which keys a query may see at all, and which it always keeps."""

from dsa.patterns.base import Pattern
from dsa.patterns.causal import Causal
from dsa.patterns.hierarchical import Hierarchical
from dsa.patterns.local_global import LocalGlobal
from dsa.patterns.multi_head import MultiHead
from dsa.patterns.sinks import Sinks
from dsa.patterns.sliding_window import SlidingWindow
from dsa.patterns.strided import Strided

__all__ = [
    "Causal", "Hierarchical", "LocalGlobal", "MultiHead", "Pattern", "Sinks", "SlidingWindow", "Strided",
]  # fmt: skip
