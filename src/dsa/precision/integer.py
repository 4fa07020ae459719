"""Symmetric integers."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.ops import IndexFeatures, Integers, multiplies
from dsa.precision.base import Bits, Precision, evenly, in_groups, straight_through

DIMS = 1024  # so many products of 8-bit integers are exact in float32


class Integer(Precision):
    """Queries and keys as integers from -(2^(bits-1) - 1) to 2^(bits-1) - 1, times scales.

    A scale never depends on a later token. `tensor` is as a cache that grows would have it: a query has one scale for
    all heads of its token, a key that of the largest number in any key up to itself, which it keeps.

    Args:
        bits: 2 to 8; more would not be exact in float32 sums.
        scale: what shares one: row (a query head's or a key's dims), tensor, or a number of neighbouring dims of a row.
    """

    def __init__(self, bits: int, scale: int | Literal["row", "tensor"]) -> None:
        if bits not in range(2, 9):
            raise ValueError(f"precision.bits = {bits}: give a whole number from 2 to 8.")
        if scale not in ("row", "tensor") and (isinstance(scale, bool | str) or scale < 1):
            raise ValueError(f"precision.scale = {scale}: give row, tensor or a whole number of dims from 1.")
        self.width, self.scale = bits, scale

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        queries, keys = features.queries.detach().abs(), features.keys.detach().abs()
        if self.scale == "tensor":
            queries = queries.amax((1, 3, 4), keepdim=True)
            keys = keys.amax((1, 3), keepdim=True).cummax(2).values
        elif self.scale == "row":
            queries, keys = queries.amax(-1, keepdim=True), keys.amax(-1, keepdim=True)
        else:
            queries, keys = of_groups(queries, self.scale), of_groups(keys, self.scale)
        query_steps, query_scales = steps(features.queries, queries, self.width)
        key_steps, key_scales = steps(features.keys, keys, self.width)
        integers = None
        if self.as_integers and features.queries.shape[-1] <= DIMS:
            weights = query_scales[..., 0].expand(features.queries.shape[:-1])
            weights = weights if features.weights is None else weights * features.weights.detach()
            scales = key_scales[..., 0].expand(features.keys.shape[:-1])
            integers = Integers(query_steps.to(torch.int8), key_steps.to(torch.int8), weights, scales)
        return features._replace(
            queries=straight_through(features.queries, query_steps * query_scales),
            keys=straight_through(features.keys, key_steps * key_scales),
            integers=integers,
        )

    @property
    def as_integers(self) -> bool:
        """Whether scores are computed from integers of 8 bits, where the processor multiplies them."""
        return self.width == 8 and self.scale in ("row", "tensor")

    def simulated(self, backend: str, device: torch.device) -> bool:
        return not (self.as_integers and multiplies(torch.int8, backend, device))

    def bits(self, features: IndexFeatures) -> Bits:
        return evenly(features, self.width, self.width)


def of_groups(x: Float[Tensor, "*row dim"], group: int) -> Float[Tensor, "*row dim"]:
    """For each number the largest of its group of dims."""
    return in_groups(x, group).amax(-1).repeat_interleave(group, -1)[..., : x.shape[-1]]


def steps(x: Float[Tensor, "*row dim"], largest: Float[Tensor, "..."], bits: int) -> tuple[Tensor, Tensor]:
    """x as whole numbers of steps, and the size of these.

    Args:
        largest: number that the largest integer stands for, at least as large as any that shares its scale.
    """
    scale = largest / (2 ** (bits - 1) - 1)
    return (x.detach() / scale.where(scale > 0, 1.0)).round(), scale


def rows_on_grid(x: Float[Tensor, "*row dim"], bits: int) -> Float[Tensor, "*row dim"]:
    """x in integers times one scale for each row."""
    number, scale = steps(x, x.detach().abs().amax(-1, keepdim=True), bits)
    return straight_through(x, number * scale)
