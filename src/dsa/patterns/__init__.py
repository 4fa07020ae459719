"""Rules over positions: which keys a query may see at all, and which it always keeps."""

from dsa.patterns.adaptive import Adaptive
from dsa.patterns.base import Choice, Pattern
from dsa.patterns.causal import Causal
from dsa.patterns.choosing import Choosing
from dsa.patterns.hierarchical import Hierarchical
from dsa.patterns.learned import Learned
from dsa.patterns.local_global import LocalGlobal
from dsa.patterns.multi_head import MultiHead
from dsa.patterns.sinks import Sinks
from dsa.patterns.sliding_window import SlidingWindow
from dsa.patterns.strided import Strided

__all__ = [
    "Adaptive", "Causal", "Choice", "Choosing", "Hierarchical", "Learned", "LocalGlobal", "MultiHead", "Pattern",
    "Sinks", "SlidingWindow", "Strided",
]  # fmt: skip
