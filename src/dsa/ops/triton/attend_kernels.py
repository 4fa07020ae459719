"""Triton kernels that attend. A program serves ROWS queries, and of their heads those that share selection and keys.

All arithmetic is float32, or as exact. Sums are taken slot by slot in tiles on a grid
that begins at a row's first slot, so what a row is answered depends on its own slots alone. Offsets are of 64 bits.
"""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.loads import heads_of, rows_of, tile_of
from dsa.ops.triton.products import product, product_of_computed


@triton.jit
@no_type_check
def bent(logits, cap):
    """cap * tanh(logits / cap)."""
    return cap * (1 - 2 / (tl.exp(2 * logits / cap) + 1))


@triton.jit
@no_type_check
def place_of(time, heads, cell, group_heads, kv_share, ROWS: tl.constexpr, HEADS: tl.constexpr):
    """Which batch, queries and heads this program serves, and which group and key/value head they share."""
    program = tl.program_id(0).to(tl.int64)
    blocks, parts = tl.cdiv(time, ROWS), tl.cdiv(cell, HEADS)
    packs = heads // cell * parts
    batch, pack = program // (blocks * packs), program // blocks % packs
    row = program % blocks * ROWS + tl.arange(0, ROWS)
    first = pack // parts * cell
    head = first + pack % parts * HEADS + tl.arange(0, HEADS)
    mask = (row < time)[:, None] & (head < first + cell)[None, :]
    return batch, row, head, mask, first // group_heads, first // kv_share


@triton.jit
@no_type_check
def forward(
    q, k, v, sink, positions, counts, out, logsumexp,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
    time, heads, cell, group_heads, kv_share, slots, dim, scale, cap,
    SINK: tl.constexpr, CAP: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    DIM: tl.constexpr,
):  # fmt: skip
    """out [batch, head, time, dim] and logsumexp [batch, head, time], both dense in memory."""
    batch, row, head, mask, group, kv_head = place_of(time, heads, cell, group_heads, kv_share, ROWS, HEADS)
    queries = heads_of(q, batch * q_batch, q_head, head, q_time, row, mask, dim, DIM)
    # Times 0 a number that is not finite is NaN: added to a logit, it spoils whoever selected it, and nobody else.
    spoilt = tl.sum(queries.to(tl.float32) * 0.0, 2)
    list_row = (batch * (heads // group_heads) + group) * time + row
    last = tl.max(tl.load(counts + list_row, mask=row < time, other=0), 0)
    peak = tl.full([ROWS, HEADS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS, HEADS], tl.float32)
    if SINK:
        peak = tl.load(sink + head[None, :] + row[:, None] * 0, mask=mask, other=0.0).to(tl.float32)
        total += 1.0
    summed = tl.zeros([ROWS, HEADS, DIM], tl.float32)
    for start in range(0, last, SLOTS):
        slot = start + tl.arange(0, SLOTS)
        inside = (row < time)[:, None] & (slot < slots)[None, :]
        place = tl.load(positions + list_row[:, None] * slots + slot[None, :], mask=inside, other=-1)
        chosen = place >= 0
        keys = rows_of(k, batch * k_batch, kv_head * k_head, k_time, place, chosen, dim, DIM)
        values = rows_of(v, batch * v_batch, kv_head * v_head, v_time, place, chosen, dim, DIM)
        logits = product(queries, tl.trans(keys, (0, 2, 1))) * scale
        if CAP:
            logits = bent(logits, cap)
        logits += spoilt[:, :, None] + tl.sum(keys.to(tl.float32) * 0.0 + values.to(tl.float32) * 0.0, 2)[:, None, :]
        logits = tl.where(chosen[:, None, :], logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 2))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        p, shrink = tl.exp(logits - base[:, :, None]), tl.exp(peak - base)
        total = total * shrink + tl.sum(p, 2)
        summed = summed * shrink[:, :, None] + product_of_computed(p, values)
        peak = higher
    at = (batch * heads + head[None, :]) * time + row[:, None]
    column = tl.arange(0, DIM)[None, None, :]
    answer = summed / tl.where(total == 0.0, 1.0, total)[:, :, None]
    tl.store(out + at[:, :, None] * dim + column, answer, mask=mask[:, :, None] & (column < dim))
    tl.store(logsumexp + at, peak + tl.log(total), mask=mask)


@triton.jit
@no_type_check
def dense_logsumexp(
    q, k, sink, logsumexp, q_batch, q_head, q_time, k_batch, k_head, k_time,
    time, keys, heads, kv_share, dim, scale, cap,
    SINK: tl.constexpr, CAP: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """logsumexp [batch, head, time], dense in memory, of the causal logits; a program serves TILE queries of a head."""
    program, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(time, TILE)
    batch, head = program // (blocks * heads), program // blocks % heads
    row = program % blocks * TILE + tl.arange(0, TILE)
    queries = tile_of(q, batch * q_batch + head * q_head, row, q_time, row < time, dim, DIM)
    last = keys - time + row
    peak = tl.full([TILE], float("-inf"), tl.float32)
    total = tl.zeros([TILE], tl.float32)
    if SINK:
        peak = tl.zeros([TILE], tl.float32) + tl.load(sink + head).to(tl.float32)
        total += 1.0
    for start in range(0, tl.max(tl.where(row < time, last, -1), 0) + 1, TILE):
        key = start + tl.arange(0, TILE)
        others = tile_of(k, batch * k_batch + head // kv_share * k_head, key, k_time, key < keys, dim, DIM)
        logits = product(queries, tl.trans(others)) * scale
        if CAP:
            logits = bent(logits, cap)
        logits = tl.where(key[None, :] <= last[:, None], logits, float("-inf"))
        higher = tl.maximum(peak, tl.max(logits, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
        peak = higher
    tl.store(logsumexp + (batch * heads + head) * time + row, peak + tl.log(total), mask=row < time)
