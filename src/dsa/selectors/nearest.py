"""A budget spent on the nearest keys instead: the opponent that an indexer has to beat."""

from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from dsa.ops import Recency, Scorer, Selection, TrueAttention
from dsa.selectors.base import Selector, SelectorContext


class NearestInstead(Selector):
    """Another selector's budget, spent on the nearest keys; a budget that depends on scores becomes the pattern's.

    Args:
        sinks: a row's first keys, so many of them, come before.
    """

    uses_indexer = False

    def __init__(self, selector: Selector, sinks: int = 0) -> None:
        super().__init__()
        self.selector, self.sinks = selector, sinks

    @property
    def calibrates(self) -> bool:
        return self.selector.calibrates and not self.selector.trims

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.own if self.selector.trims else self.selector.limit(context)

    def at_most(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.own if self.selector.trims else self.selector.at_most(context)

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Recency(self.sinks)

    def observe(self, selection: Selection, context: SelectorContext) -> None:
        self.selector.observe(selection, context)

    def calibrate(self, total: Callable[[Tensor], Tensor]) -> Tensor:
        return self.selector.calibrate(total)
