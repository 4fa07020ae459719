"""No rounding."""

import torch

from dsa.ops import IndexFeatures
from dsa.precision.base import Bits, Precision, evenly


class Exact(Precision):
    """Index scores as float32 computes them."""

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        return features

    def simulated(self, backend: str, device: torch.device) -> bool:
        return False

    def bits(self, features: IndexFeatures) -> Bits:
        return evenly(features, 32, 32)
