"""Triton kernels of indexer losses over all earlier units: a program serves a tile of queries, units or both.

Slopes, the gradients by the index scores, are those of a block of queries. What is summed over queries is summed tile
by tile in their order, whatever the blocks; tiles that no query of them sees are left out.
"""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.attend_kernels import bent
from dsa.ops.triton.loads import tile_of
from dsa.ops.triton.products import product, product_of_computed


@triton.jit
@no_type_check
def masses(
    q, k, logsumexp, summed, q_batch, q_head, q_time, k_batch, k_head, k_time, l_batch, l_head, l_time,
    groups, group_heads, kv_share, rows, width, before, unit, dim, scale, cap,
    CAP: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """summed [batch, group, row, width]: attention summed over a group's heads and a unit's tokens; what lies in the
    future holds anything.

    before: position of the first of these queries.
    """
    program, down, across = tl.program_id(0).to(tl.int64), tl.cdiv(rows, TILE), tl.cdiv(width, TILE)
    line, row = program // (down * across), program // across % down * TILE + tl.arange(0, TILE)
    first = program % across * TILE
    batch, group, own = line // groups, line % groups, first + tl.arange(0, TILE)
    if first * unit <= before + tl.max(row, 0):
        total = tl.zeros([TILE, TILE], tl.float32)
        for head in range(group * group_heads, (group + 1) * group_heads):
            queries = tile_of(q, batch * q_batch + head * q_head, row, q_time, row < rows, dim, DIM)
            told = logsumexp + batch * l_batch + head * l_head + row * l_time
            own_logsumexp = tl.load(told, mask=row < rows, other=0.0).to(tl.float32)
            along = batch * k_batch + head // kv_share * k_head
            for token in range(unit):
                others = tile_of(k, along, own * unit + token, k_time, own < width, dim, DIM)
                logits = product(queries, tl.trans(others)) * scale
                if CAP:
                    logits = bent(logits, cap)
                total += tl.exp(logits - own_logsumexp[:, None])
        place = summed + (line * rows + row[:, None]) * width + own[None, :]
        tl.store(place, total, mask=(row < rows)[:, None] & (own < width)[None, :])


@triton.jit
@no_type_check
def queries_gradient(
    queries, keys, weights, slopes, grad_queries, grad_weights,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, rows, width, before, unit, time, heads, dim,
    RELU: tl.constexpr, WEIGHTED: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """grad_queries [batch, group, time, head, dim] and grad_weights [batch, group, time, head], dense in memory, of a
    tile of queries and one of their heads."""
    program, down = tl.program_id(0).to(tl.int64), tl.cdiv(rows, TILE)
    line, head = program // (down * heads), program % heads
    row = program // heads % down * TILE + tl.arange(0, TILE)
    batch, group = line // groups, line % groups
    own = tile_of(queries, batch * q_batch + group * q_group + head * q_head, row, q_time, row < rows, dim, DIM)
    by_query, by_weight = tl.zeros([TILE, DIM], tl.float32), tl.zeros([TILE], tl.float32)
    seen = (before + tl.max(tl.where(row < rows, row, 0), 0) + 1) // unit
    for first in range(0, tl.minimum(seen, width), TILE):
        key = first + tl.arange(0, TILE)
        others = tile_of(keys, batch * k_batch + group // key_share * k_group, key, k_time, key < width, dim, DIM)
        place = slopes + (line * rows + row[:, None]) * width + key[None, :]
        slope = tl.load(place, mask=(row < rows)[:, None] & (key < width)[None, :], other=0.0)
        dots = product(own, tl.trans(others))
        if RELU:
            slope = tl.where(dots > 0.0, slope, 0.0)
        by_weight += tl.sum(slope * dots, 1)
        by_query += product_of_computed(slope, others)
    if WEIGHTED:
        own_weights = weights + batch * w_batch + group * w_group + row * w_time + head * w_head
        by_query *= tl.load(own_weights, mask=row < rows, other=0.0).to(tl.float32)[:, None]
        tl.store(grad_weights + (line * time + row) * heads + head, by_weight, mask=row < rows)
    column = tl.arange(0, DIM)[None, :]
    told = grad_queries + ((line * time + row[:, None]) * heads + head) * dim + column
    tl.store(told, by_query, mask=(row < rows)[:, None] & (column < dim))


@triton.jit
@no_type_check
def keys_gradient(
    queries, keys, weights, slopes, grad_keys,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, rows, width, before, unit, units, heads, dim,
    RELU: tl.constexpr, WEIGHTED: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """Adds to grad_keys [batch, keygroup, unit, dim], dense in memory, what a block of queries gives a tile of keys."""
    program, across = tl.program_id(0).to(tl.int64), tl.cdiv(width, TILE)
    keygroups = groups // key_share
    batch, keygroup = program // (across * keygroups), program // across % keygroups
    first = program % across * TILE
    key, column = first + tl.arange(0, TILE), tl.arange(0, DIM)[None, :]
    own = tile_of(keys, batch * k_batch + keygroup * k_group, key, k_time, key < width, dim, DIM)
    told = grad_keys + ((batch * keygroups + keygroup) * units + key[:, None]) * dim + column
    kept = (key < width)[:, None] & (column < dim)
    summed = tl.load(told, mask=kept, other=0.0)
    begin = tl.maximum((first + 1) * unit - 1 - before, 0) // TILE * TILE  # the first query that sees the first unit
    for start in range(begin, rows, TILE):
        row = start + tl.arange(0, TILE)
        for group in range(keygroup * key_share, (keygroup + 1) * key_share):
            place = slopes + ((batch * groups + group) * rows + row[:, None]) * width + key[None, :]
            slope = tl.load(place, mask=(row < rows)[:, None] & (key < width)[None, :], other=0.0)
            for head in range(heads):
                along = batch * q_batch + group * q_group + tl.cast(head, tl.int64) * q_head
                others = tile_of(queries, along, row, q_time, row < rows, dim, DIM)
                part = slope
                if RELU:
                    dots = product(others, tl.trans(own))
                    part = tl.where(dots > 0.0, part, 0.0)
                if WEIGHTED:
                    own_weights = weights + batch * w_batch + group * w_group + row * w_time + head * w_head
                    part *= tl.load(own_weights, mask=row < rows, other=0.0).to(tl.float32)[:, None]
                summed += product_of_computed(tl.trans(part), others)
    tl.store(told, summed, mask=kept)
