"""Fixed patterns dealt to groups of heads."""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.ops import Zones, by_group
from dsa.patterns.base import Pattern
from dsa.patterns.named import check_named


class MultiHead(Pattern):
    """A pattern for each group of heads, which thereby attend to keys of their own.

    The heads of a layer are cut into as many equal groups as are dealt, in order: of 8 heads and `near far` the
    first four get `near`. Each group keeps the budget of its own pattern, unless a selector says otherwise.

    Args:
        patterns: by names of your own; each is for all heads.
        deal: the name of each group's pattern, with spaces between (a list would be alternatives of a study).
    """

    grouped_by = "pattern.deal"

    def __init__(self, patterns: Mapping[str, Pattern], deal: str) -> None:
        self.patterns = check_named(patterns)
        self.deal = tuple(deal.split())
        if set(self.deal) != set(patterns):
            raise ValueError(
                f"pattern.deal = {deal}: give for each group of heads one of {', '.join(patterns)}, with "
                "spaces between, and each of them at least once."
            )

    def zones(self) -> tuple[Zones, ...]:
        return tuple(by_group(self.patterns[name].zones())[0] for name in self.deal)

    def own_budget(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        return torch.cat([self.patterns[name].own_budget(time, forced) for name in self.deal], -2)
