"""A share of the visible keys."""

from jaxtyping import Int
from torch import Tensor

from dsa.checks import positive, share
from dsa.selectors.base import Selector, SelectorContext


class Ratio(Selector):
    """A share of the keys that each query can see, rounded up.

    Args:
        ratio: the share.
        min_k: keys kept at least [tokens].
    """

    def __init__(self, ratio: float, min_k: int) -> None:
        super().__init__()
        self.ratio, self.min_k = share(ratio, "selector.ratio"), positive(min_k, "selector.min_k")

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        wanted = (context.visible.double() * self.ratio - 1e-9).ceil().long().clamp(min=self.min_k)
        return wanted.minimum(context.visible)
