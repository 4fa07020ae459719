"""What every pattern answers."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops import Zones, kept, visible


class Choice(NamedTuple):
    """What a pattern made of others settled on in one pass.

    Args:
        entry: index into its library.
        gate: 1, with the gradient of the probability of what was chosen; the attention's output is multiplied by it.
        names: of the library.
    """

    entry: Int[Tensor, "batch group time"]
    gate: Float[Tensor, "batch group time"]
    names: tuple[str, ...]

    def shares(self) -> list[dict[str, float]]:
        """For each group of heads the share of queries that got each entry."""
        each = torch.stack([(self.entry == number).float().mean((0, 2)) for number in range(len(self.names))], -1)
        return [dict(zip(self.names, group, strict=True)) for group in each.tolist()]


class Pattern(ABC):
    """A list of zones, for all heads or for each group of heads, and how many keys a query keeps when the selector
    has no opinion. One that chooses among others has a library of them; else it is its own library.

    Attributes:
        budget: keys kept in all [tokens]; None if the zones themselves say how much they keep.
        learns: it has parameters; they are trained beside the indexers in the warm-up, and in joint training.
        prefix: of how many of a row's first tokens it reads the hidden states [tokens].
        grouped_by: the setting that says for how many groups of heads it has zones, if one does.
    """

    budget: int | None = None
    learns: bool = False
    prefix: int = 0
    grouped_by: str | None = None

    @abstractmethod
    def zones(self) -> Zones | tuple[Zones, ...]:
        """The zones: disjoint, independent of the length. One tuple for all heads, or one for each group of them.
        Where there is a choice, those that are shown before anything is learned."""

    @property
    def library(self) -> "tuple[Pattern, ...]":
        """The fixed patterns of which each query gets one."""
        return (self,)

    def begun(self, width: int) -> "Pattern":
        """The same pattern with what it learns, as it begins, at a site of hidden states of this width."""
        return self

    def choose(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
        progress: float,
        step: int,
    ) -> Choice | None:
        """Which of the library each query gets; nothing at a position may depend on later tokens.

        Args:
            x: hidden states of the queries; first: of the row's first `prefix` tokens, as far as they are there.
            time: positions of the queries.
            progress: of training, 0 to 1; step: of training, from 1; 0 in every evaluation.
        """
        return None

    def flops(self, length: int) -> float:
        """Operations of choosing, for one sequence."""
        return 0.0

    def visible(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` can see, with what an indexer forces."""
        return visible(self.zones(), time, forced)

    def own_budget(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        """Number of keys that queries at `time` keep by default; those that an indexer forces come on top where the
        zones say how much they keep."""
        if self.budget is not None:
            return self.visible(time, forced).clamp(max=self.budget)
        return kept(self.zones(), time, forced)
