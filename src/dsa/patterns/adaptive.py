"""A pattern that follows the input."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsa.checks import at_least, positive
from dsa.patterns.base import Pattern
from dsa.patterns.choosing import Choosing


class Adaptive(Choosing):
    """A small causal linear map reads the hidden states and says which of a library of patterns a query is shown.

    It decides for each token by its own hidden state, which the tokens up to it have made; or with a `prefix` once a
    row, by the mean over the row's first tokens: these are shown the default, all later ones what it decided. It begins
    with weights of 0, which show the default.

    Args:
        groups: equal groups of a layer's heads that choose apart.
        prefix: tokens that decide for a row; 0 = each token decides for itself [tokens].
        patterns, default, hot, cold: as `Choosing`.
    """

    def __init__(
        self, patterns: Mapping[str, Pattern], default: str, groups: int, prefix: int, hot: float, cold: float
    ) -> None:
        super().__init__(patterns, default, hot, cold)
        self.groups = positive(groups, "pattern.groups")
        self.prefix = at_least(prefix, 0, "pattern.prefix")
        self.each_token = self.prefix == 0

    def begun(self, width: int) -> "Adaptive":
        self.chooser = nn.Parameter(torch.zeros(self.groups * len(self.entries), width))
        return self

    def preferences(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch group time entry"]:
        if self.each_token:
            return self.read(x)
        default = F.one_hot(torch.zeros_like(time), len(self.entries))[:, None].bool()
        early = (time < self.prefix)[:, None, :, None]
        decided = self.read(first.mean(1, keepdim=True))  # of a row that is shorter nobody asks
        return torch.where(early, torch.where(default, 0.0, -math.inf), decided)

    def read(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch group time entry"]:
        """What it prefers after these hidden states."""
        return (x @ self.chooser.mT).unflatten(-1, (self.groups, -1)).transpose(1, 2)

    def flops(self, length: int) -> float:
        entries, width = self.chooser.shape
        if self.each_token:
            return 2.0 * width * entries * length
        return (2.0 * entries + self.prefix) * width if length > self.prefix else 0.0
