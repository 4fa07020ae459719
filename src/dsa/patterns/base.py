"""What every pattern answers."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.ops import Zones, visible


class Pattern(ABC):
    """A list of zones, and how many keys a query keeps when the selector has no opinion.

    Attributes:
        budget: keys kept in all [tokens]; None if the zones themselves say how much they keep.
    """

    budget: int | None = None

    @abstractmethod
    def zones(self) -> Zones:
        """The zones: disjoint, independent of the length."""

    def visible(self, time: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Number of keys that queries at `time` can see."""
        return visible(self.zones(), time)

    def own_budget(self, time: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Number of keys that queries at `time` keep by default."""
        if self.budget is not None:
            return self.visible(time).clamp(max=self.budget)
        return torch.stack([zone.kept(zone.span(time)[1]) for zone in self.zones()]).sum(0)
