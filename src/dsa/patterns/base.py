"""What every pattern answers."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.ops import Zones, by_group, visible


class Pattern(ABC):
    """A list of zones, for all heads or for each group of heads, and how many keys a query keeps when the selector
    has no opinion.

    Attributes:
        budget: keys kept in all [tokens]; None if the zones themselves say how much they keep.
    """

    budget: int | None = None

    @abstractmethod
    def zones(self) -> Zones | tuple[Zones, ...]:
        """The zones: disjoint, independent of the length. One tuple for all heads, or one for each group of them."""

    def visible(self, time: Int[Tensor, "*batch time"]) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` can see."""
        return visible(self.zones(), time)

    def own_budget(self, time: Int[Tensor, "*batch time"]) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` keep by default."""
        if self.budget is not None:
            return self.visible(time).clamp(max=self.budget)
        kept = [torch.stack([zone.kept(zone.span(time)[1]) for zone in each]) for each in by_group(self.zones())]
        return torch.stack([each.sum(0) for each in kept], -2)
