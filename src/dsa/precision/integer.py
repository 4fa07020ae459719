"""Symmetric integers."""

from jaxtyping import Float
from torch import Tensor

from dsa.ops import IndexFeatures
from dsa.precision.base import Precision, straight_through


class Integer(Precision):
    """Queries and keys as integers from -(2^(bits-1) - 1) to 2^(bits-1) - 1, one scale per row.

    Args:
        bits: 2 to 8; more would not be exact in float32 sums.
    """

    def __init__(self, bits: int) -> None:
        if bits not in range(2, 9):
            raise ValueError(f"precision.bits = {bits}: give a whole number from 2 to 8.")
        self.largest = 2 ** (bits - 1) - 1

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        return features._replace(queries=self.rounded(features.queries), keys=self.rounded(features.keys))

    def rounded(self, x: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row dim"]:
        """x on the integer grid of its row."""
        scale = x.detach().abs().amax(-1, keepdim=True) / self.largest
        return straight_through(x, (x.detach() / scale.where(scale > 0, 1.0)).round() * scale)
