"""Triton kernels that score and select.

The best of a zone are found by their threshold: the score of the last one kept, digit by digit, and among those that
have this very score the position of the last one kept. Zones are told as [zone, 4, batch, group, row]: first key,
number of keys, how many of them are kept, step. Scores are told as ranks: 32 bits that are in the scores' order as
unsigned numbers, all of them set where a score is not a number.
"""

from typing import no_type_check

import triton
import triton.language as tl

from dsa.ops.triton.loads import tile_of
from dsa.ops.triton.products import product


@triton.jit
@no_type_check
def score(
    queries, keys, weights, zones, scores,
    q_batch, q_group, q_time, q_head, k_batch, k_group, k_time, w_batch, w_group, w_time, w_head,
    groups, key_share, rows, width, heads, dim,
    ZONES: tl.constexpr, RELU: tl.constexpr, WEIGHTED: tl.constexpr, TILE: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """scores [batch, group, row, width] of a tile of queries and keys, if a zone holds any of them; else it stays."""
    program, down, across = tl.program_id(0).to(tl.int64), tl.cdiv(rows, TILE), tl.cdiv(width, TILE)
    line, row = program // (down * across), program // across % down * TILE + tl.arange(0, TILE)
    first = program % across * TILE
    batch, group = line // groups, line % groups
    lines = tl.num_programs(0).to(tl.int64) // (down * across) * rows
    wanted = tl.zeros([TILE], tl.int32)
    for zone in tl.static_range(ZONES):
        place = zones + zone * 4 * lines + line * rows + row
        start = tl.load(place, mask=row < rows, other=0)
        count = tl.load(place + lines, mask=row < rows, other=0)
        step = tl.load(place + 3 * lines, mask=row < rows, other=0)
        overlaps = (count > 0) & (start < first + TILE) & (start + (count - 1) * step >= first)
        wanted += overlaps.to(tl.int32)
    if tl.max(wanted, 0) > 0:
        key = first + tl.arange(0, TILE)
        others = tile_of(keys, batch * k_batch + group // key_share * k_group, key, k_time, key < width, dim, DIM)
        total = tl.zeros([TILE, TILE], tl.float32)
        for head in range(heads):
            at = batch * q_batch + group * q_group + tl.cast(head, tl.int64) * q_head
            own = tile_of(queries, at, row, q_time, row < rows, dim, DIM)
            dots = product(own, tl.trans(others))
            if RELU:
                dots = tl.where(dots < 0.0, 0.0, dots)  # what is no number stays none
            if WEIGHTED:
                weight = weights + batch * w_batch + group * w_group + row * w_time + head * w_head
                dots *= tl.load(weight, mask=row < rows, other=0.0).to(tl.float32)[:, None]
            total += dots
        told = scores + (line * rows + row[:, None]) * width + key[None, :]
        tl.store(told, total, mask=(row < rows)[:, None] & (key < width)[None, :])


@triton.jit
@no_type_check
def span_of(zones, zone, lines, at, mask):
    """First key, number of keys, how many are kept, and step of a zone, for each of these rows."""
    place = zones + zone * 4 * lines + at
    start, count = tl.load(place, mask=mask, other=0), tl.load(place + lines, mask=mask, other=0)
    keep, step = tl.load(place + 2 * lines, mask=mask, other=0), tl.load(place + 3 * lines, mask=mask, other=0)
    return start, count, keep, step


@triton.jit
@no_type_check
def threshold(
    ranks, zones, thresholds, last_ties, broken, r_batch, r_group, r_row, groups, rows, lines, zone,
    ROWS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """For each query what the last one kept of a zone scores, and where the last one kept with this very score lies
    [batch group row]; adds up how many of the zone's scores are not a number."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    line, row, mask = at // rows, at % rows, at < lines
    start, count, keep, step = span_of(zones, zone, lines, at, mask)
    own = ranks + line // groups * r_batch + line % groups * r_group + row * r_row
    none = tl.zeros([ROWS], tl.int32)
    for begin in range(0, tl.max(count, 0), SPAN):
        member = begin + tl.arange(0, SPAN)[None, :]
        inside = member < count[:, None]
        x = tl.load(own[:, None] + start[:, None] + member * step[:, None], mask=inside, other=0)
        none += tl.sum((x == -1).to(tl.int32), 1)
    tl.store(broken + at, tl.load(broken + at, mask=mask, other=0) + none, mask=mask)
    # A zone that keeps all it has needs no threshold.
    most = tl.max(tl.where(keep < count, count, 0), 0)
    found = tl.zeros([ROWS], tl.uint32)
    for place in tl.static_range(8):
        digits = (tl.arange(0, 16) << (28 - 4 * place)).to(tl.uint32, bitcast=True)
        tried = found[:, None] + digits[None, :]
        enough = tl.zeros([ROWS, 16], tl.int32)
        for begin in range(0, most, SPAN):
            member = begin + tl.arange(0, SPAN)[None, :]
            inside = member < count[:, None]
            x = tl.load(own[:, None] + start[:, None] + member * step[:, None], mask=inside, other=0)
            x = x.to(tl.uint32, bitcast=True)
            reaches = (x[:, :, None] >= tried[:, None, :]) & inside[:, :, None]
            enough += tl.sum(reaches.to(tl.int32), 1)
        # The largest digit with which `keep` scores reach the number: they fall from digit to digit.
        digit = tl.maximum(tl.sum((enough >= keep[:, None]).to(tl.int32), 1) - 1, 0)
        found += (digit << (28 - 4 * place)).to(tl.uint32, bitcast=True)
    above = tl.zeros([ROWS], tl.int32)
    for begin in range(0, most, SPAN):
        member = begin + tl.arange(0, SPAN)[None, :]
        inside = member < count[:, None]
        x = tl.load(own[:, None] + start[:, None] + member * step[:, None], mask=inside, other=0)
        above += tl.sum(((x.to(tl.uint32, bitcast=True) > found[:, None]) & inside).to(tl.int32), 1)
    ties, last = tl.zeros([ROWS], tl.int32), tl.full([ROWS], -1, tl.int32)
    for begin in range(0, most, SPAN):
        member = begin + tl.arange(0, SPAN)[None, :]
        inside = member < count[:, None]
        key = start[:, None] + member * step[:, None]
        x = tl.load(own[:, None] + key, mask=inside, other=0)
        tied = ((x.to(tl.uint32, bitcast=True) == found[:, None]) & inside).to(tl.int32)
        rank = ties[:, None] + tl.cumsum(tied, 1)
        last = tl.maximum(last, tl.max(tl.where((tied > 0) & (rank <= (keep - above)[:, None]), key, -1), 1))
        ties += tl.sum(tied, 1)
    tl.store(thresholds + at, found.to(tl.int32, bitcast=True), mask=mask)
    tl.store(last_ties + at, last, mask=mask)


@triton.jit
@no_type_check
def compact(
    ranks, zones, thresholds, last_ties, positions, r_batch, r_group, r_row, groups, rows, lines, slots, unit,
    ZONES: tl.constexpr, FORCED: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """positions [batch group row, slot]: the keys of all zones that are kept, ascending. Zones tell of units of so many
    keys, those whose bit of FORCED is set of keys."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    line, row, mask = at // rows, at % rows, at < lines
    own = ranks + line // groups * r_batch + line % groups * r_group + row * r_row
    low, high = 2147483647, 0
    for zone in tl.static_range(ZONES):
        start, count, _, step = span_of(zones, zone, lines, at, mask)
        begin, end = start, start + (count - 1) * step + 1
        if (FORCED >> zone) % 2 == 0:
            begin, end = begin * unit, end * unit
        low = tl.minimum(low, tl.min(tl.where(count > 0, begin, 2147483647), 0))
        high = tl.maximum(high, tl.max(tl.where(count > 0, end, 0), 0))
    filled = tl.zeros([ROWS], tl.int32)
    for begin in range(low, high, SPAN):
        key = begin + tl.arange(0, SPAN)[None, :]
        kept = tl.zeros([ROWS, SPAN], tl.int32)
        for zone in tl.static_range(ZONES):
            start, count, keep, step = span_of(zones, zone, lines, at, mask)
            member = key
            if (FORCED >> zone) % 2 == 0:
                member = key // unit
            distance = member - start[:, None]
            steps = tl.maximum(step, 1)[:, None]
            inside = (distance >= 0) & (distance < count[:, None] * steps) & (distance % steps == 0)
            competes = inside & (keep < count)[:, None]
            bar = tl.load(thresholds + zone * lines + at, mask=mask, other=0).to(tl.uint32, bitcast=True)[:, None]
            last = tl.load(last_ties + zone * lines + at, mask=mask, other=0)[:, None]
            x = tl.load(own[:, None] + member, mask=competes, other=0).to(tl.uint32, bitcast=True)
            best = (x > bar) | ((x == bar) & (member <= last))
            kept += ((inside & (keep >= count)[:, None]) | (competes & best)).to(tl.int32)
        slot = filled[:, None] + tl.cumsum(kept, 1) - 1
        tl.store(positions + at[:, None] * slots + slot, key + slot * 0, mask=(kept > 0) & (slot < slots))
        filled += tl.sum(kept, 1)


@triton.jit
@no_type_check
def scores_of(own, start, count, step, begin, SPAN: tl.constexpr):
    """Scores [row, SPAN] of a zone's keys from `begin` on; -inf beyond its last."""
    member = begin + tl.arange(0, SPAN)[None, :]
    at_score = own[:, None] + start[:, None] + member * step[:, None]
    return tl.load(at_score, mask=member < count[:, None], other=float("-inf"))


@triton.jit
@no_type_check
def row_sums(
    scores, zones, logsumexps, entropies, r_batch, r_group, r_row, groups, rows, lines,
    ZONES: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Log-sum-exp and entropy [batch group row] in nats of the scores in all zones."""
    at = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    line, row, mask = at // rows, at % rows, at < lines
    own = scores + line // groups * r_batch + line % groups * r_group + row * r_row
    peak, total = tl.full([ROWS], float("-inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    for zone in tl.static_range(ZONES):
        start, count, _, step = span_of(zones, zone, lines, at, mask)
        for begin in range(0, tl.max(count, 0), SPAN):
            x = scores_of(own, start, count, step, begin, SPAN)
            higher = tl.maximum(peak, tl.max(x, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            total = total * tl.exp(peak - base) + tl.sum(tl.exp(x - base[:, None]), 1)
            peak = higher
    some = tl.where(total == 0.0, 1.0, total)
    logsumexp = peak + tl.log(some)
    base = tl.where(total == 0.0, 0.0, logsumexp)
    entropy = tl.zeros([ROWS], tl.float32)
    for zone in tl.static_range(ZONES):
        start, count, _, step = span_of(zones, zone, lines, at, mask)
        for begin in range(0, tl.max(count, 0), SPAN):
            x = scores_of(own, start, count, step, begin, SPAN)
            p = tl.exp(x - base[:, None])
            entropy -= tl.sum(tl.where(p > 0.0, p * (x - base[:, None]), 0.0), 1)
    tl.store(logsumexps + at, logsumexp, mask=mask)
    tl.store(entropies + at, entropy, mask=mask)
