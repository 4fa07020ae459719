"""Number formats of the index scores: features in, rounded features out."""

from dsa.precision.base import Bits, Precision
from dsa.precision.by_part import ByPart
from dsa.precision.dynamic import Dynamic
from dsa.precision.exact import Exact
from dsa.precision.float8 import Float8
from dsa.precision.integer import Integer

__all__ = ["Bits", "ByPart", "Dynamic", "Exact", "Float8", "Integer", "Precision"]
