"""Products of tiles, summed in float32 and as exact as in float32.

Two tiles of one half format go to the matrix units as they are: each product has room in float32. A computed tile of
float32 is cut into three parts of bfloat16 that hold its 24 bits, one product each, where the other is of bfloat16.
All else is multiplied in float32.
"""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.launch import interpreted

INTERPRETED = tl.constexpr(interpreted())  # there products of bfloat16 are garbage


@triton.jit
@no_type_check
def product(a, b):
    """a @ b of tiles as they were loaded."""
    if INTERPRETED or a.dtype != b.dtype:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
@no_type_check
def product_of_computed(a, b):
    """a @ b of a computed tile of float32 and one as it was loaded."""
    if b.dtype != tl.bfloat16:
        return product(a, b)
    high = a.to(tl.bfloat16)
    rest = a - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
    return product(high, b) + (product(middle, b) + product(low, b))
