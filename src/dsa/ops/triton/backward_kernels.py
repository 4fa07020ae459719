"""Triton kernels of the gradients of attention. Each sum has one program and one order, so no atomics are needed."""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.attend_kernels import bent, place_of
from dsa.ops.triton.loads import heads_of, rows_of, tile_of
from dsa.ops.triton.products import product, product_of_computed


@triton.jit
@no_type_check
def slopes(products, logsumexp, upstream, delta, scale, cap, CAP: tl.constexpr):
    """Of selected pairs their probability, and the gradient by the product of query and key."""
    logits = products * scale
    bend = 1.0
    if CAP:
        logits = bent(logits, cap)
        bend = 1 - (logits / cap) * (logits / cap)
    p = tl.exp(logits - logsumexp)
    return p, p * (upstream - delta) * bend * scale


@triton.jit
@no_type_check
def queries_gradient(
    q, k, v, positions, counts, grad, delta, logsumexp, grad_q,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
    time, heads, cell, group_heads, kv_share, slots, dim, scale, cap,
    CAP: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """grad_q [batch, head, time, dim], dense in memory as grad is; programs as in the forward pass."""
    batch, row, head, mask, group, kv_head = place_of(time, heads, cell, group_heads, kv_share, ROWS, HEADS)
    queries = heads_of(q, batch * q_batch, q_head, head, q_time, row, mask, dim, DIM)
    upstream = heads_of(grad, batch * heads * time * dim, time * dim, head, dim, row, mask, dim, DIM)
    at = (batch * heads + head[None, :]) * time + row[:, None]
    own_delta = tl.load(delta + at, mask=mask, other=0.0)[:, :, None]
    own_logsumexp = tl.load(logsumexp + at, mask=mask, other=0.0)[:, :, None]
    list_row = (batch * (heads // group_heads) + group) * time + row
    last = tl.max(tl.load(counts + list_row, mask=row < time, other=0), 0)
    summed = tl.zeros([ROWS, HEADS, DIM], tl.float32)
    for start in range(0, last, SLOTS):
        slot = start + tl.arange(0, SLOTS)
        inside = (row < time)[:, None] & (slot < slots)[None, :]
        place = tl.load(positions + list_row[:, None] * slots + slot[None, :], mask=inside, other=-1)
        chosen = place >= 0
        keys = rows_of(k, batch * k_batch, kv_head * k_head, k_time, place, chosen, dim, DIM)
        values = rows_of(v, batch * v_batch, kv_head * v_head, v_time, place, chosen, dim, DIM)
        products = product(queries, tl.trans(keys, (0, 2, 1)))
        share = product_of_computed(upstream, tl.trans(values, (0, 2, 1)))
        _, slope = slopes(products, own_logsumexp, share, own_delta, scale, cap, CAP)
        summed += product_of_computed(tl.where(chosen[:, None, :], slope, 0.0), keys)
    column = tl.arange(0, DIM)[None, None, :]
    tl.store(grad_q + at[:, :, None] * dim + column, summed, mask=mask[:, :, None] & (column < dim))


@triton.jit
@no_type_check
def keys_gradient(
    q, k, v, starts, lists, grad, delta, logsumexp, grad_k, grad_v,
    q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
    time, keys, heads, group_heads, kv_share, slots, dim, scale, cap,
    CAP: tl.constexpr, KEYS: tl.constexpr, LIST: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """grad_k and grad_v [batch, kv_head, key, dim], dense in memory. A program serves KEYS keys: it goes through the
    heads that share them, and through the queries that selected each, in their order."""
    program, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(keys, KEYS)
    kv_heads = heads // kv_share
    batch, kv_head = program // (blocks * kv_heads), program // blocks % kv_heads
    key = program % blocks * KEYS + tl.arange(0, KEYS)
    column = tl.arange(0, DIM)[None, :]
    own = (key < keys)[:, None] & (column < dim)
    own_key = tile_of(k, batch * k_batch + kv_head * k_head, key, k_time, key < keys, dim, DIM)
    own_value = tile_of(v, batch * v_batch + kv_head * v_head, key, v_time, key < keys, dim, DIM)
    own_key, own_value = own_key.to(tl.float32)[:, None, :], own_value.to(tl.float32)[:, None, :]
    by_key, by_value = tl.zeros([KEYS, DIM], tl.float32), tl.zeros([KEYS, DIM], tl.float32)
    for head in range(kv_head * kv_share, (kv_head + 1) * kv_share):
        group = batch * (heads // group_heads) + head // group_heads
        begin = tl.load(starts + group * (keys + 1) + key, mask=key < keys, other=0)
        end = tl.load(starts + group * (keys + 1) + key + 1, mask=key < keys, other=0)
        for step in range(0, tl.max(end - begin, 0), LIST):
            entry = begin[:, None] + step + tl.arange(0, LIST)[None, :]
            listed = entry < end[:, None]
            row = tl.load(lists + group * time * slots + entry, mask=listed, other=0) // slots
            at = (batch * heads + head) * time + row
            queries = rows_of(q, batch * q_batch, head * q_head, q_time, row, listed, dim, DIM)
            upstream = rows_of(grad, batch * heads * time * dim, head * time * dim, dim, row, listed, dim, DIM)
            p, slope = slopes(
                tl.sum(queries * own_key, 2), tl.load(logsumexp + at, mask=listed, other=0.0),
                tl.sum(upstream * own_value, 2), tl.load(delta + at, mask=listed, other=0.0), scale, cap, CAP,
            )  # fmt: skip
            by_value += tl.sum(tl.where(listed, p, 0.0)[:, :, None] * upstream, 1)
            by_key += tl.sum(tl.where(listed, slope, 0.0)[:, :, None] * queries, 1)
    at = ((batch * kv_heads + kv_head) * keys + key[:, None]) * dim + column
    tl.store(grad_k + at, by_key, mask=own)
    tl.store(grad_v + at, by_value, mask=own)
