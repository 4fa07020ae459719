"""What every pattern answers."""

from abc import ABC, abstractmethod

from jaxtyping import Int
from torch import Tensor

from dsa.ops import Zones, kept, visible


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

    def visible(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` can see, with what an indexer forces."""
        return visible(self.zones(), time, forced)

    def own_budget(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` keep by default; those that an indexer forces come on top where the
        zones say how much they keep."""
        if self.budget is not None:
            return self.visible(time, forced).clamp(max=self.budget)
        return kept(self.zones(), time, forced)
