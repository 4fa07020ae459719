"""A format for each part of an index score."""

import torch
from torch import Tensor

from dsa.checks import one_of
from dsa.ops import IndexFeatures, multiplies
from dsa.precision.base import Bits, Precision, evenly, straight_through
from dsa.precision.integer import rows_on_grid

FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
INTEGERS = {"int8": 8, "int4": 4}
STORED = (*FLOATS, *INTEGERS)


class ByPart(Precision):
    """Queries, keys, weights and arithmetic each in a format of its own.

    Args:
        queries: float32, float16, bfloat16, int8 or int4; integers are symmetric, one scale per row.
        keys: as queries.
        weights: float32, float16 or bfloat16.
        accumulate: as weights; each dot product, each weighted term and each sum over heads is rounded to it.
    """

    def __init__(self, queries: str, keys: str, weights: str, accumulate: str) -> None:
        self.queries = one_of(queries, STORED, "precision.queries")
        self.keys = one_of(keys, STORED, "precision.keys")
        self.weights = FLOATS[one_of(weights, tuple(FLOATS), "precision.weights")]
        self.accumulate = FLOATS[one_of(accumulate, tuple(FLOATS), "precision.accumulate")]

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        weights = features.weights
        return features._replace(
            queries=rounded(features.queries, self.queries),
            keys=rounded(features.keys, self.keys),
            weights=None if weights is None else through(weights, self.weights),
            accumulate=self.accumulate,
            held=torch.bfloat16 if self.in_bfloat else torch.float32,
        )

    @property
    def in_bfloat(self) -> bool:
        """Whether queries and keys are bfloat16."""
        return self.queries == self.keys == "bfloat16"

    def simulated(self, backend: str, device: torch.device) -> bool:
        sums = self.accumulate in (torch.float32, torch.bfloat16)
        return not (self.in_bfloat and sums and multiplies(torch.bfloat16, backend, device))

    def bits(self, features: IndexFeatures) -> Bits:
        return evenly(features, bits_of(self.queries), bits_of(self.keys))


def bits_of(name: str) -> int:
    """Bits of a number in a format."""
    return INTEGERS[name] if name in INTEGERS else FLOATS[name].itemsize * 8


def rounded(x: Tensor, name: str) -> Tensor:
    """x in the format of this name."""
    return rows_on_grid(x, INTEGERS[name]) if name in INTEGERS else through(x, FLOATS[name])


def through(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to dtype."""
    return straight_through(x, x.to(dtype).to(x.dtype))
