"""The same model, whose keys are ranked by changed scores."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jaxtyping import Int
from torch import Tensor

from dsa.backbones import Router
from dsa.ops import Scorer, TrueAttention
from dsa.selectors import Selector, SelectorContext


class Reranked(Selector):
    """Another selector's budget, spent by a changed scorer.

    Args:
        inner: a selector that does not trim.
        change: of the scorer that it would rank the keys by.
    """

    def __init__(self, inner: Selector, change: Callable[[Scorer], Scorer]) -> None:
        super().__init__()
        self.inner, self.uses_indexer, self.change = inner, inner.uses_indexer, change

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return self.inner.limit(context)

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return self.change(self.inner.scorer(features, attention, context))


@contextmanager
def reranked(routers: Sequence[Router], change: Callable[[Scorer], Scorer]) -> Iterator[None]:
    """Let these routers rank their keys by changed scores for a while."""
    own = [router.selector for router in routers]
    for router in routers:
        router.selector = Reranked(router.selector, change)
    try:
        yield
    finally:
        for router, selector in zip(routers, own, strict=True):
            router.selector = selector
