"""A fixed number of keys."""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from dsa.selectors.base import Selector, SelectorContext


class TopK(Selector):
    """The k best keys of each query.

    Args:
        k: keys kept in all; None keeps the pattern's own budget [tokens].

    Attributes:
        plain: its k and budget are these; said of a class itself, and of none that derives from it.
    """

    plain: ClassVar[bool] = True

    def __init__(self, k: int | None = None) -> None:
        super().__init__()
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise ValueError(
                f"selector.k = {k}: a query must keep at least one key. "
                "Give a whole number from 1, null for the pattern's own budget, or selector=ratio_10 for a share."
            )
        self.k = k

    @classmethod
    def budget(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """That of the k best keys, for controls that rank them otherwise too; what derives from one of these may mean
        something else by k."""
        if not vars(cls).get("plain"):
            return super().budget(settings)
        return {"_target_": "dsa.selectors.TopK", "k": settings.get("k")}

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.own if self.k is None else context.visible.clamp(max=self.k)
