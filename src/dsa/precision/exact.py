"""No rounding."""

from dsa.ops import IndexFeatures
from dsa.precision.base import Bits, Precision, evenly


class Exact(Precision):
    """Index scores as float32 computes them."""

    simulated = False

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        return features

    def bits(self, features: IndexFeatures) -> Bits:
        return evenly(features, 32, 32)
