"""Number formats of the index scores: features in, rounded features out."""

from dsa.precision.base import Precision
from dsa.precision.exact import Exact
from dsa.precision.float8 import Float8
from dsa.precision.half import HalfPrecision
from dsa.precision.integer import Integer

__all__ = ["Exact", "Float8", "HalfPrecision", "Integer", "Precision"]
