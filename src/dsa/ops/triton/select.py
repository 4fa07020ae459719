"""Selecting on the Triton kernels: the scores of a block of queries lie in memory, never those of all."""

import math
from collections.abc import Iterator
from functools import partial
from typing import TypeGuard

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops import faults
from dsa.ops.contracts import Scorer, Selection, Trim
from dsa.ops.scorers import IndexFeatures
from dsa.ops.scores import largest, report_few, report_nan
from dsa.ops.trims import trimmed
from dsa.ops.triton import sizes
from dsa.ops.triton.features import Index, index_of, unusual
from dsa.ops.triton.launch import launch
from dsa.ops.zones import Span, Zones, spans


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    slots: int | None = None,
) -> Selection:
    """As `reference.select`. Without slots it waits for the device once, which says how many there are to be.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number. On a GPU one of the next ops says so.
        ValueError: slots that are given are too few; likewise.
    """
    batch, own, time = limit.shape
    shape = batch, max(scorer.groups, own), time
    every = spans(zones, limit, offset, first, scorer.unit, scorer.forced)
    table = torch.stack([numbers(span, shape) for span in every])
    counts = torch.stack([part[2] * span.unit for part, span in zip(table, every, strict=True)]).sum(0).int()
    if slots is None:
        slots = max(largest(counts), 1)
    elif counts.numel():
        faults.watch(counts.amax(), partial(report_few, slots))
        counts = counts.clamp(max=slots)
    positions = limit.new_full((*shape, slots), -1, dtype=torch.int32)
    broken = limit.new_zeros(shape, dtype=torch.int32)
    seen = [span for span in every if trim is not None and not (span.forced and scorer.unit > 1)]
    sizes = () if trim is None else (positions.shape, shape, shape, shape)
    sums = [torch.empty(size, device=limit.device) for size in sizes]
    for rows in blocks(shape, offset, 1 if by_kernel(scorer) else scorer.width):
        part = table[..., rows].contiguous()
        wide = [numbers(cut(span, rows), part.shape[2:], whole=True) for span in seen]
        ranked_by = wide or [own for own, span in zip(part, every, strict=True) if not span.forced]
        width = (offset + rows.stop) // scorer.unit
        scores = positions.new_zeros(1, 1, part.shape[-1], 1, dtype=torch.float32)
        if ranked_by and width:
            scores = scores_of(scorer, torch.stack(ranked_by), rows, width, offset)
        block, broken[:, :, rows] = choose(scores, part, every, scorer.unit, slots)
        positions[:, :, rows] = block
        if trim is not None:
            for told, found in zip(sums, statistics(scores, wide, part, every, scorer.unit, block), strict=True):
                told[:, :, rows] = found
    if broken.numel():
        faults.watch(first_broken(broken), report_nan)
    selection = Selection(positions, counts)
    return selection if trim is None else trimmed(trim, selection, scorer.unit, *sums)


def cut(span: Span, rows: slice) -> Span:
    """That of some queries."""
    return span._replace(start=span.start[..., rows], count=span.count[..., rows], keep=span.keep[..., rows])


def numbers(span: Span, shape: tuple[int, ...], whole: bool = False) -> Int[Tensor, "4 batch group time"]:
    """What the kernels read of a span: start, count, keep and step. Of a forced one only what it keeps, all of it, or
    with `whole` what it shows."""
    start, count, keep = (x.expand(shape) for x in (span.start, span.count, span.keep))
    if span.forced and not whole:
        start, count = start + (count - keep) * span.step, keep
    return torch.stack([start, count, keep, torch.full_like(start, span.step)]).int()


def blocks(shape: tuple[int, int, int], offset: int, held: int = 1) -> Iterator[slice]:
    """Slices of the queries of which the scores have room.

    Args:
        held: numbers that are in memory at once for a score.
    """
    batch, groups, time = shape
    size = max(sizes.TILE, sizes.SCORES // max(batch * groups * held * (offset + time), 1) // sizes.TILE * sizes.TILE)
    for start in range(0, time, size):
        yield slice(start, min(start + size, time))


def by_kernel(scorer: Scorer) -> TypeGuard[IndexFeatures]:
    """Whether the kernel computes its scores; what else ranks keys computes its own."""
    return isinstance(scorer, IndexFeatures) and scorer.integers is None and unusual(scorer) is None


def scores_of(
    scorer: Scorer, table: Int[Tensor, "zone 4 batch group row"], rows: slice, width: int, offset: int
) -> Float[Tensor, "scorer_batch scorer_group row unit"]:
    """The scores of these queries and the first `width` units; the kernel's where a zone of the table holds any of a
    tile."""
    if by_kernel(scorer):
        return index_scores(index_of(scorer).rows(rows), table, width)
    return scorer.scores(rows, slice(0, width), offset, table.device).float()


def index_scores(
    index: Index, table: Int[Tensor, "zone 4 batch group row"], width: int
) -> Float[Tensor, "batch scorer_group row unit"]:
    """Those of all queries of index features; tiles that no zone reaches hold anything."""
    from dsa.ops.triton import select_kernels

    batch, groups, count, heads, dim = index.queries.shape
    # The selection may be of more groups than the scorer; a tile is wanted if any of them wants it.
    lines = table if table.shape[3] == groups else hull(table)
    scores = index.queries.new_empty(batch, groups, count, width, dtype=torch.float32)
    tile = sizes.tile(dim)
    programs = batch * groups * -(-count // tile) * -(-width // tile)
    launch(
        select_kernels.score, programs, (*index.tensors, lines.contiguous(), scores), *index.strides, groups,
        index.key_share, count, width, heads, dim, ZONES=len(table), TILE=tile, **index.constants,
    )  # fmt: skip
    return scores


def hull(table: Int[Tensor, "zone 4 batch group row"]) -> Int[Tensor, "zone 4 batch 1 row"]:
    """The zones of all groups as one: where they lie is the same, whatever each keeps."""
    return table[:, :, :, :1]


def ranked(scores: Float[Tensor, "batch group row key"]) -> Int[Tensor, "batch group row key"]:
    """32 bits that are in the scores' order as unsigned numbers: see `select_kernels`. Of equal scores they are equal,
    0 of either sign too, and what lies below all finite numbers counts as the lowest of them."""
    bits = scores.where(scores != 0, 0.0).clamp(min=torch.finfo(torch.float32).min).view(torch.int32)
    return torch.where(bits < 0, ~bits, bits ^ torch.iinfo(torch.int32).min).masked_fill_(scores.isnan(), -1)


def choose(
    scores: Float[Tensor, "some any row unit"],
    table: Int[Tensor, "zone 4 batch group row"],
    every: list[Span],
    unit: int,
    slots: int,
) -> tuple[Int[Tensor, "batch group row slot"], Int[Tensor, "batch group row"]]:
    """The kept keys of each query, and how many of its scores are not a number. Forced zones keep all that the table
    tells of them, the others their best by score."""
    from dsa.ops.triton import select_kernels

    batch, groups, rows = table.shape[2:]
    lines, ranks = batch * groups * rows, ranked(scores).expand(batch, groups, -1, -1)
    programs = -(-lines // sizes.ROWS)
    thresholds, last_ties = (table.new_zeros(len(table), batch, groups, rows) for _ in range(2))
    broken, positions = table.new_zeros(batch, groups, rows), table.new_full((batch, groups, rows, slots), -1)
    given = *ranks.stride()[:3], groups, rows, lines
    tile = {"ROWS": sizes.ROWS, "SPAN": min(sizes.SPAN, sizes.power(ranks.shape[-1]))}
    for zone, span in enumerate(every):
        if not span.forced:
            tensors = ranks, table, thresholds[zone], last_ties[zone], broken
            launch(select_kernels.threshold, programs, tensors, *given, zone, **tile)
    tile["SPAN"] = min(sizes.SPAN, sizes.power(ranks.shape[-1] * unit))
    forced = sum(span.forced << zone for zone, span in enumerate(every))
    tensors = ranks, table, thresholds, last_ties, positions
    launch(select_kernels.compact, programs, tensors, *given, slots, unit, ZONES=len(table), FORCED=forced, **tile)
    return positions, broken


def statistics(
    scores: Float[Tensor, "some any row unit"],
    seen: list[Int[Tensor, "4 batch group row"]],
    table: Int[Tensor, "zone 4 batch group row"],
    every: list[Span],
    unit: int,
    positions: Int[Tensor, "batch group row slot"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a trim rule is told of some queries: see `trims.trimmed`.

    Args:
        seen: what each zone shows of which there are scores: with units of several tokens, of none that is forced.
        table: what each zone keeps.
    """
    shape = positions.shape[:3]
    scores = scores.expand(*shape[:2], -1, -1)
    forced = [own for own, span in zip(table, every, strict=True) if span.forced]
    logsumexp, entropy = row_sums(scores, seen)
    by_force, _ = row_sums(scores, forced if unit == 1 else [])
    place = (positions.clamp(min=0) // unit).clamp(max=scores.shape[-1] - 1)
    own = scores.gather(-1, place.long()).masked_fill(among(positions, forced), math.nan)
    return own, logsumexp, entropy, by_force


def among(
    positions: Int[Tensor, "batch group row slot"], zones: list[Int[Tensor, "4 batch group row"]]
) -> Bool[Tensor, "batch group row slot"]:
    """Whether a zone holds them."""
    held = torch.zeros_like(positions, dtype=torch.bool)
    for start, count, _, step in (zone[..., None] for zone in zones):
        distance = positions - start
        held |= (distance >= 0) & (distance < count * step) & (distance % step == 0)
    return held


def row_sums(
    scores: Float[Tensor, "batch group row unit"], zones: list[Int[Tensor, "4 batch group row"]]
) -> tuple[Float[Tensor, "batch group row"], Float[Tensor, "batch group row"]]:
    """Log-sum-exp and entropy of each row's scores in the zones; -inf and 0 where they hold none."""
    from dsa.ops.triton import select_kernels

    shape = scores.shape[:3]
    logsumexp, entropy = scores.new_full(shape, -math.inf), scores.new_zeros(shape)
    if zones:
        lines = logsumexp.numel()
        launch(
            select_kernels.row_sums, -(-lines // sizes.ROWS), (scores, torch.stack(zones), logsumexp, entropy),
            *scores.stride()[:3], *shape[1:], lines, ZONES=len(zones), ROWS=sizes.ROWS,
            SPAN=min(sizes.SPAN, sizes.power(scores.shape[-1])),
        )  # fmt: skip
    return logsumexp, entropy


def first_broken(broken: Int[Tensor, "batch group time"]) -> Int[Tensor, "2"]:
    """How many scores are not a number, and the number of the first query that has one."""
    return torch.stack([broken.sum(), broken.flatten(0, 1).any(0).int().argmax()])
