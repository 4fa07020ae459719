"""Controls: what an indexer is judged against. None of them has an indexer."""

from collections.abc import Callable

from jaxtyping import Int
from torch import Tensor

from dsa.checks import at_least, flag
from dsa.ops import Hash, Recency, Scorer, TrueAttention
from dsa.selectors.base import Selector, SelectorContext
from dsa.selectors.topk import TopK


class Oracle(TopK):
    """The keys of highest true attention, summed over heads: what a perfect indexer would choose.

    Args:
        shared: one selection for all heads, as an indexer makes it; false: one for each key/value head.
    """

    uses_indexer = False
    plain = True

    def __init__(self, k: int | None = None, shared: bool = True) -> None:
        super().__init__(k)
        self.shared = flag(shared, "selector.shared")

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        target = attention()
        return target if self.shared else target._replace(groups=target.keys.shape[1])


class Random(TopK):
    """Keys at random, redrawn each training step and fixed in evaluation.

    Args:
        seed: of the draw.
    """

    uses_indexer = False
    plain = True

    def __init__(self, k: int | None = None, seed: int = 0) -> None:
        super().__init__(k)
        self.seed = at_least(seed, 0, "selector.seed")

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Hash(self.seed, context.layer, context.step)


class Window(TopK):
    """The nearest keys."""

    uses_indexer = False
    plain = True

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Recency()


class SinkWindow(TopK):
    """A row's first keys, on which trained models rest attention that has nowhere to go, then the nearest ones.

    Args:
        sinks: how many of the first keys, counted with the budget (Xiao et al. 2023, arXiv:2309.17453).
    """

    uses_indexer = False
    plain = True

    def __init__(self, k: int | None = None, sinks: int = 4) -> None:
        super().__init__(k)
        self.sinks = at_least(sinks, 0, "selector.sinks")

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Recency(self.sinks)


class Dense(Selector):
    """Every key that the pattern lets a query see."""

    uses_indexer = False

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.visible

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Recency()
