"""float16 and bfloat16."""

from typing import Literal

import torch
from torch import Tensor

from dsa.ops import IndexFeatures
from dsa.precision.base import Precision, straight_through

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class HalfPrecision(Precision):
    """Queries and keys in a half format; weights and sums in the accumulation format.

    Args:
        dtype: format of queries and keys.
        accumulate: format of the weights, and of each dot product and sum.
    """

    def __init__(self, dtype: Literal["float16", "bfloat16"], accumulate: str) -> None:
        for name, value in (("dtype", dtype), ("accumulate", accumulate)):
            if value not in FORMATS:
                raise ValueError(f"precision.{name} = {value}: give one of {', '.join(FORMATS)}.")
        self.dtype, self.accumulate = FORMATS[dtype], FORMATS[accumulate]

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        weights = features.weights
        return features._replace(
            queries=through(features.queries, self.dtype),
            keys=through(features.keys, self.dtype),
            weights=None if weights is None else through(weights, self.accumulate),
            accumulate=self.accumulate,
        )


def through(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x rounded to dtype."""
    return straight_through(x, x.to(dtype).to(x.dtype))
