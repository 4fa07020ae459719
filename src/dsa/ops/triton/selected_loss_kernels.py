"""Triton kernels of indexer losses over selected units. A program serves ROWS queries of a group, or KEYS keys.

Places are [batch, chosen, time, slot], and the first `stop` of a query's slots hold the units in its scope. So lie
masses, scores and slopes of each group. Neighbouring groups may share places, keys and heads of the target.
"""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.attend_kernels import bent
from dsa.ops.triton.loads import heads_of, rows_of, tile_of
from dsa.ops.triton.products import product, product_of_computed


@triton.jit
@no_type_check
def rows_in(stops, groups, chosen_share, time, ROWS: tl.constexpr):
    """Which batch, group, line of both, line of places and queries this program serves, and how many slots they use."""
    program, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(time, ROWS)
    line, row = program // blocks, program % blocks * ROWS + tl.arange(0, ROWS)
    batch, group = line // groups, line % groups
    chosen_line = batch * (groups // chosen_share) + group // chosen_share
    last = tl.max(tl.load(stops + chosen_line * time + row, mask=row < time, other=0), 0)
    return batch, group, line, chosen_line, row, last


@triton.jit
@no_type_check
def placed(places, line, row, start, time, slots, SLOTS: tl.constexpr):
    """The units in these slots of the queries, -1 where there is none, and where the slots lie: [ROWS, SLOTS]."""
    slot = start + tl.arange(0, SLOTS)
    inside = (row < time)[:, None] & (slot < slots)[None, :]
    at = (line * time + row[:, None]) * slots + slot[None, :]
    return tl.load(places + at, mask=inside, other=-1), row[:, None] * slots + slot[None, :], inside


@triton.jit
@no_type_check
def masses(
    q, k, logsumexp, places, stops, summed, q_batch, q_head, q_time, k_batch, k_head, k_time,
    groups, target_share, chosen_share, heads, group_heads, cell, kv_share, time, slots, unit, dim, scale, cap,
    CAP: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """summed [batch, group, time, slot]: attention summed over the heads of a group and the tokens of each place.

    cell: neighbouring heads that share their keys, within a group; logsumexp is dense in memory.
    """
    batch, group, line, chosen_line, row, last = rows_in(stops, groups, chosen_share, time, ROWS)
    begin = group // target_share * group_heads
    for start in range(0, last, SLOTS):
        place, offset, inside = placed(places, chosen_line, row, start, time, slots, SLOTS)
        chosen = place >= 0
        total = tl.zeros([ROWS, SLOTS], tl.float32)
        for first in range(begin, begin + group_heads, cell):
            for next_head in range(first, first + cell, HEADS):
                head = next_head + tl.arange(0, HEADS)
                mask = (row < time)[:, None] & (head < first + cell)[None, :]
                queries = heads_of(q, batch * q_batch, q_head, head, q_time, row, mask, dim, DIM)
                told = logsumexp + (batch * heads + head[None, :]) * time + row[:, None]
                own_logsumexp = tl.load(told, mask=mask, other=0.0)[:, :, None]
                along = first // kv_share * k_head
                for token in range(unit):
                    others = rows_of(k, batch * k_batch, along, k_time, place * unit + token, chosen, dim, DIM)
                    logits = product(queries, tl.trans(others, (0, 2, 1))) * scale
                    if CAP:
                        logits = bent(logits, cap)
                    p = tl.where(mask[:, :, None] & chosen[:, None, :], logits - own_logsumexp, float("-inf"))
                    total += tl.sum(tl.exp(p), 1)
        tl.store(summed + line * time * slots + offset, total, mask=inside)


@triton.jit
@no_type_check
def scores(
    queries, keys, weights, places, stops, told,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, chosen_share, time, slots, heads, dim,
    RELU: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    DIM: tl.constexpr,
):  # fmt: skip
    """Index scores [batch, group, time, slot] of the places."""
    batch, group, line, chosen_line, row, last = rows_in(stops, groups, chosen_share, time, ROWS)
    for start in range(0, last, SLOTS):
        place, offset, inside = placed(places, chosen_line, row, start, time, slots, SLOTS)
        others = rows_of(keys, batch * k_batch, group // key_share * k_group, k_time, place, place >= 0, dim, DIM)
        total = tl.zeros([ROWS, SLOTS], tl.float32)
        for first in range(0, heads, HEADS):
            head = first + tl.arange(0, HEADS)
            mask = (row < time)[:, None] & (head < heads)[None, :]
            own = heads_of(queries, batch * q_batch + group * q_group, q_head, head, q_time, row, mask, dim, DIM)
            dots = product(own, tl.trans(others, (0, 2, 1)))
            if RELU:
                dots = tl.where(dots < 0.0, 0.0, dots)  # what is no number stays none
            if WEIGHTED:
                along = batch * w_batch + group * w_group + row[:, None] * w_time + head[None, :] * w_head
                dots *= tl.load(weights + along, mask=mask, other=0.0).to(tl.float32)[:, :, None]
            total += tl.sum(dots, 1)
        tl.store(told + line * time * slots + offset, total, mask=inside)


@triton.jit
@no_type_check
def queries_gradient(
    queries, keys, weights, places, stops, slopes, grad_queries, grad_weights,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, chosen_share, time, slots, heads, dim,
    RELU: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, SLOTS: tl.constexpr,
    DIM: tl.constexpr,
):  # fmt: skip
    """grad_queries [batch, group, time, head, dim] and grad_weights [batch, group, time, head], dense in memory."""
    batch, group, line, chosen_line, row, last = rows_in(stops, groups, chosen_share, time, ROWS)
    for first in range(0, heads, HEADS):
        head = first + tl.arange(0, HEADS)
        mask = (row < time)[:, None] & (head < heads)[None, :]
        own = heads_of(queries, batch * q_batch + group * q_group, q_head, head, q_time, row, mask, dim, DIM)
        by_query, by_weight = tl.zeros([ROWS, HEADS, DIM], tl.float32), tl.zeros([ROWS, HEADS], tl.float32)
        for start in range(0, last, SLOTS):
            place, offset, inside = placed(places, chosen_line, row, start, time, slots, SLOTS)
            others = rows_of(keys, batch * k_batch, group // key_share * k_group, k_time, place, place >= 0, dim, DIM)
            slope = tl.load(slopes + line * time * slots + offset, mask=inside, other=0.0)[:, None, :]
            dots = product(own, tl.trans(others, (0, 2, 1)))
            part = tl.broadcast_to(slope, [ROWS, HEADS, SLOTS])
            if RELU:
                part = tl.where(dots > 0.0, part, 0.0)
            by_weight += tl.sum(part * dots, 2)
            by_query += product_of_computed(part, others)
        if WEIGHTED:
            along = batch * w_batch + group * w_group + row[:, None] * w_time + head[None, :] * w_head
            by_query *= tl.load(weights + along, mask=mask, other=0.0).to(tl.float32)[:, :, None]
            tl.store(grad_weights + (line * time + row[:, None]) * heads + head[None, :], by_weight, mask=mask)
        column = tl.arange(0, DIM)[None, None, :]
        told = grad_queries + ((line * time + row[:, None, None]) * heads + head[None, :, None]) * dim + column
        tl.store(told, by_query, mask=mask[:, :, None] & (column < dim))


@triton.jit
@no_type_check
def keys_gradient(
    queries, keys, weights, starts, lists, slopes, grad_keys,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, chosen_share, time, units, slots, heads, dim,
    RELU: tl.constexpr, WEIGHTED: tl.constexpr, KEYS: tl.constexpr, LIST: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """grad_keys [batch, keygroup, unit, dim], dense in memory: a program goes through the groups that share its keys,
    and through the queries that selected each, in their order."""
    program, blocks = tl.program_id(0).to(tl.int64), tl.cdiv(units, KEYS)
    keygroups = groups // key_share
    batch, keygroup = program // (blocks * keygroups), program // blocks % keygroups
    key = program % blocks * KEYS + tl.arange(0, KEYS)
    own = tile_of(keys, batch * k_batch + keygroup * k_group, key, k_time, key < units, dim, DIM)
    own = own.to(tl.float32)[:, None, :]
    summed = tl.zeros([KEYS, DIM], tl.float32)
    for group in range(keygroup * key_share, (keygroup + 1) * key_share):
        chosen_line = batch * (groups // chosen_share) + group // chosen_share
        begin = tl.load(starts + chosen_line * (units + 1) + key, mask=key < units, other=0)
        end = tl.load(starts + chosen_line * (units + 1) + key + 1, mask=key < units, other=0)
        own_queries = batch * q_batch + group * q_group
        for step in range(0, tl.max(end - begin, 0), LIST):
            entry = begin[:, None] + step + tl.arange(0, LIST)[None, :]
            listed = entry < end[:, None]
            slot = tl.load(lists + chosen_line * time * slots + entry, mask=listed, other=0)
            row = slot // slots
            slope = tl.load(slopes + (batch * groups + group) * time * slots + slot, mask=listed, other=0.0)
            for head in range(heads):
                others = rows_of(queries, own_queries, tl.cast(head, tl.int64) * q_head, q_time, row, listed, dim, DIM)
                part = slope
                if RELU:
                    part = tl.where(tl.sum(others * own, 2) > 0.0, part, 0.0)
                if WEIGHTED:
                    own_weights = weights + batch * w_batch + group * w_group + row * w_time + head * w_head
                    part *= tl.load(own_weights, mask=listed, other=0.0).to(tl.float32)
                summed += tl.sum(part[:, :, None] * others, 1)
    column = tl.arange(0, DIM)[None, :]
    at = ((batch * keygroups + keygroup) * units + key[:, None]) * dim + column
    tl.store(grad_keys + at, summed, mask=(key < units)[:, None] & (column < dim))
