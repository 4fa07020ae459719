"""Selecting on the Triton kernels: the scores of a block of queries lie in memory, never those of all."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.contracts import Scorer, Selection, Trim
from dsa.ops.scorers import IndexFeatures
from dsa.ops.scores import largest, report_broken
from dsa.ops.triton import sizes
from dsa.ops.triton.launch import dense_last, launch
from dsa.ops.zones import Span, Zones, spans


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """As `reference.select`, of single tokens and without a trim rule.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number.
    """
    assert trim is None and scorer.unit == 1, "covers refuses these"
    batch, own, time = limit.shape
    shape = batch, max(scorer.groups, own), time
    every = spans(zones, limit, offset, first, 1, scorer.forced)
    competing = [number for number, span in enumerate(every) if not span.forced]
    table = torch.stack([numbers(span, shape) for span in every])
    counts = table[:, 2].sum(0, dtype=torch.int32)
    positions = limit.new_full((*shape, max(largest(counts), 1)), -1, dtype=torch.int32)
    broken = limit.new_zeros(shape, dtype=torch.int32)
    for rows in blocks(shape, offset):
        part = table[..., rows].contiguous()
        ranks = (
            ranked(scores_of(scorer, part[competing], rows, offset))
            if competing
            else part.new_zeros(1, 1, part.shape[-1], 1)
        )
        block, none = choose(ranks.expand(*shape[:2], -1, -1), part, competing, positions.shape[-1])
        positions[:, :, rows], broken[:, :, rows] = block, none
    if bool(broken.any()):
        report_broken(broken)
    return Selection(positions, counts)


def numbers(span: Span, shape: tuple[int, int, int]) -> Int[Tensor, "4 batch group time"]:
    """What the kernels read of a span: start, count, keep and step. Of a forced one only what it keeps, all of it."""
    start, count, keep = (x.expand(shape) for x in (span.start, span.count, span.keep))
    if span.forced:
        start, count = start + (count - keep) * span.step, keep
    return torch.stack([start, count, keep, torch.full_like(start, span.step)]).int()


def blocks(shape: tuple[int, int, int], offset: int) -> Iterator[slice]:
    """Slices of the queries of which the scores have room."""
    batch, groups, time = shape
    size = max(sizes.TILE, sizes.SCORES // max(batch * groups * (offset + time), 1) // sizes.TILE * sizes.TILE)
    for start in range(0, time, size):
        yield slice(start, min(start + size, time))


def scores_of(
    scorer: Scorer, table: Int[Tensor, "zone 4 batch group row"], rows: slice, offset: int
) -> Float[Tensor, "scorer_batch scorer_group row key"]:
    """The scores of these queries and all keys up to the last of them. Plain index features are scored by the kernel,
    where a zone of the table holds any of a tile; what else ranks keys computes its own."""
    width, device = offset + rows.stop, table.device
    if isinstance(scorer, IndexFeatures) and plain(scorer):
        return index_scores(scorer, table, rows, width)
    return scorer.scores(rows, slice(0, width), offset, device).float()


def plain(features: IndexFeatures) -> bool:
    """Whether the kernel scores them: summed in float32, not as integers, of as many dims as a head."""
    exact = features.integers is None and features.accumulate == torch.float32
    return exact and features.queries.shape[-1] <= sizes.HEAD_DIM


def index_scores(
    features: IndexFeatures, table: Int[Tensor, "zone 4 batch group row"], rows: slice, width: int
) -> Float[Tensor, "batch scorer_group row key"]:
    """Those of index features; tiles that no zone reaches hold anything."""
    from dsa.ops.triton import select_kernels

    queries, keys = dense_last(features.queries[:, :, rows]), dense_last(features.keys)
    weights = None if features.weights is None else features.weights[:, :, rows].detach()
    batch, groups, count, heads, dim = queries.shape
    # The selection may be of more groups than the scorer; a tile is wanted if any of them wants it.
    lines = table if table.shape[3] == groups else hull(table)
    scores = queries.new_empty(batch, groups, count, width, dtype=torch.float32)
    programs = batch * groups * -(-count // sizes.TILE) * -(-width // sizes.TILE)
    launch(
        select_kernels.score, programs, (queries, keys, weights, lines.contiguous(), scores),
        *queries.stride()[:4], *keys.stride()[:3], *((0,) * 4 if weights is None else weights.stride()),
        groups, groups // keys.shape[1], count, width, heads, dim,
        ZONES=len(table), RELU=features.activation == "relu", WEIGHTED=weights is not None, TILE=sizes.TILE,
        DIM=sizes.power(dim),
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
    ranks: Int[Tensor, "batch group row key"],
    table: Int[Tensor, "zone 4 batch group row"],
    competing: list[int],
    slots: int,
) -> tuple[Int[Tensor, "batch group row slot"], Int[Tensor, "batch group row"]]:
    """The kept keys of each query, and how many of its scores are not a number.

    Args:
        competing: which zones keep their best by score; the others keep all they have.
    """
    from dsa.ops.triton import select_kernels

    batch, groups, rows = table.shape[2:]
    lines = batch * groups * rows
    programs = -(-lines // sizes.ROWS)
    thresholds, last_ties = (table.new_zeros(len(table), batch, groups, rows) for _ in range(2))
    broken, positions = table.new_zeros(batch, groups, rows), table.new_full((batch, groups, rows, slots), -1)
    given = *ranks.stride()[:3], groups, rows, lines
    cut = {"ROWS": sizes.ROWS, "SPAN": min(sizes.SPAN, sizes.power(ranks.shape[-1]))}
    for zone in competing:
        tensors = ranks, table, thresholds[zone], last_ties[zone], broken
        launch(select_kernels.threshold, programs, tensors, *given, zone, **cut)
    tensors = ranks, table, thresholds, last_ties, positions
    launch(select_kernels.compact, programs, tensors, *given, slots, ZONES=len(table), **cut)
    return positions, broken
