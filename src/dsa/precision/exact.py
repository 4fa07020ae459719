"""No rounding."""

from dsa.ops import IndexFeatures
from dsa.precision.base import Precision


class Exact(Precision):
    """Index scores as float32 computes them."""

    simulated = False

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        return features
