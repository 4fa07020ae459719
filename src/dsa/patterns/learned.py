"""A pattern for each layer and group of heads, chosen in training."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsa.checks import positive
from dsa.patterns.base import Pattern
from dsa.patterns.choosing import Choosing

SPEED = 20.0
"""Preferences are their parameter times this: it learns at the indexers' rate, which suits small weights, not numbers
that have to reach 1."""


class Learned(Choosing):
    """Each group of heads of each layer learns which of a library of patterns it is shown; all tokens get the same.

    Args:
        groups: equal groups of a layer's heads that choose apart.
        patterns, default, hot, cold: as `Choosing`.
    """

    def __init__(self, patterns: Mapping[str, Pattern], default: str, groups: int, hot: float, cold: float) -> None:
        super().__init__(patterns, default, hot, cold)
        self.groups = positive(groups, "pattern.groups")

    def begun(self, width: int) -> "Learned":
        self.preference = nn.Parameter(torch.zeros(self.groups, len(self.entries)))
        return self

    def preferences(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch group time entry"]:
        return (SPEED * self.preference[None, :, None]).expand(len(x), -1, x.shape[1], -1)
