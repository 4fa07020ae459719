"""What the kernels load, in the format that it is in. Places, rows and heads are widened to 64 bits."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def tile_of(x, at, place, stride, mask, dim, DIM: tl.constexpr):
    """A row of x for every place, 0 where `mask` says no: [places, DIM]."""
    column = tl.arange(0, DIM)[None, :]
    offset = at + place.to(tl.int64)[:, None] * stride + column
    return tl.load(x + offset, mask=mask[:, None] & (column < dim), other=0.0)


@triton.jit
@no_type_check
def rows_of(x, at, along, stride, place, mask, dim, DIM: tl.constexpr):
    """Rows of x, 0 where `mask` says no: of every place [a, b] one, [a, b, DIM]."""
    column = tl.arange(0, DIM)[None, None, :]
    offset = at + along + place.to(tl.int64)[:, :, None] * stride + column
    return tl.load(x + offset, mask=mask[:, :, None] & (column < dim), other=0.0)


@triton.jit
@no_type_check
def heads_of(x, at, head_stride, head, time_stride, row, mask, dim, DIM: tl.constexpr):
    """Rows of x for every query and head, 0 where `mask` says no: [ROWS, HEADS, DIM]."""
    column = tl.arange(0, DIM)[None, None, :]
    offset = at + head.to(tl.int64)[None, :, None] * head_stride + row[:, None, None] * time_stride + column
    return tl.load(x + offset, mask=mask[:, :, None] & (column < dim), other=0.0)
