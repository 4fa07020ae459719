"""What every number format answers."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dsa.ops import IndexFeatures


class Bits(NamedTuple):
    """How many bits hold a number of each row, a query head's or a key's; what scales take is not in it."""

    queries: Float[Tensor, "batch group time head"]
    keys: Float[Tensor, "batch keygroup entry"]


class Precision(ABC):
    """Rounds index features to a number format, with straight-through gradients."""

    @abstractmethod
    def cast(self, features: IndexFeatures) -> IndexFeatures:
        """The features as this format holds them; what it does to a row depends on no later token."""

    def simulated(self, backend: str, device: torch.device) -> bool:
        """Whether only the rounding is imitated and the arithmetic runs in float32: quality numbers, never speed.

        Args:
            backend: the setting `ops`.
            device: where scores are computed.
        """
        return True

    def bits(self, features: IndexFeatures) -> Bits | None:
        """What it spends on these features; None if it does not say."""
        return None

    def flops(self, numbers: int) -> float:
        """Operations of choosing how so many numbers are held; rounding them is conversion, no arithmetic."""
        return 0.0


def evenly(features: IndexFeatures, queries: int, keys: int) -> Bits:
    """So many bits for every query and for every key."""
    return Bits(features.queries.new_full(features.queries.shape[:-1], queries),
                features.keys.new_full(features.keys.shape[:-1], keys))  # fmt: skip


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradient of the exact ones."""
    return exact + (rounded - exact).detach()


def in_groups(x: Float[Tensor, "*row dim"], group: int) -> Float[Tensor, "*row parts group"]:
    """The dims of each row in parts of `group`, the last filled up with zeros."""
    return F.pad(x, (0, -x.shape[-1] % group)).unflatten(-1, (-1, group))
