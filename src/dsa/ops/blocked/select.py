"""Selecting by blocks of queries; keys outside zones are not scored."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dsa.ops.blocked.tiles import blocks
from dsa.ops.contracts import Scorer, Selection, Trim
from dsa.ops.reference import from_mask, members, per_token, trimmed
from dsa.ops.scores import check_scores, largest, slots_for
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
    """As `reference.select`, a block of queries at a time; patterns without scored zones compute no score."""
    batch, own, length = limit.shape
    groups = max(scorer.groups, own)
    every = spans(zones, limit, offset, first, scorer.unit, scorer.forced)
    room = slots_for(torch.stack([(span.keep * span.unit).expand_as(limit) for span in every]).sum(0), slots)
    parts = []
    for rows in blocks(length, batch * groups * scorer.width * (offset + length)):
        part = [span._replace(**{n: getattr(span, n)[..., rows] for n in ("start", "count", "keep")}) for span in every]
        start, mask = select_rows(scorer, part, rows, (batch, groups), offset, trim)
        chosen = from_mask(mask, room)
        positions = torch.where(chosen.positions >= 0, chosen.positions + start, -1)
        parts.append(Selection(positions, chosen.counts))
    positions, counts = (torch.cat(x, 2) for x in zip(*parts, strict=True))
    if trim is not None:
        positions = positions[..., : slots_for(counts, slots)]
    return Selection(positions, counts)


def select_rows(
    scorer: Scorer, part: list[Span], rows: slice, shape: tuple[int, int], offset: int, trim: Trim | None
) -> tuple[int, Bool[Tensor, "batch group rows key"]]:
    """First key of the columns that these queries can see, and the mask of those they keep."""
    device, unit = part[0].start.device, scorer.unit
    low, high = bounds(part)
    low, high = low // unit * unit, -(-high // unit) * unit
    keys = high - low
    kept = torch.zeros(*shape, rows.stop - rows.start, keys, dtype=torch.bool, device=device)
    scored, seen = torch.zeros_like(kept), torch.zeros_like(kept)
    units = slice(low // unit, min(high, offset + rows.stop) // unit)
    tile = None
    if trim is not None or any(not span.forced and bool(span.count.any()) for span in part):
        tile = scorer.scores(rows, units, offset, device).expand(*shape, -1, -1)
    for span in part:
        moved = span._replace(start=span.start - low // span.unit)
        if span.forced:
            inside = members(moved, keys)
            stop = moved.start + (span.count - span.keep) * span.step
            chosen = inside & (torch.arange(keys, device=device) >= stop[..., None])
            seen |= inside & (unit == 1)
        else:
            if tile is None:
                continue
            inside = members(moved, tile.shape[-1]).expand_as(tile)
            check_scores(tile, inside, rows.start)
            chosen = best(tile, inside, span.keep.expand(-1, shape[1], -1))
            chosen, inside = (per_token(x, unit, keys) for x in (chosen, inside))
            scored |= chosen
            seen |= inside
        kept |= chosen
    if trim is not None:
        assert tile is not None
        kept = trimmed(trim, per_token(tile, unit, keys) - math.log(unit), kept, scored, seen, unit)
    return low, kept


def bounds(part: list[Span]) -> tuple[int, int]:
    """First and one past the last token that any of these queries can see."""
    low, high = [], []
    for span in part:
        some = span.count > 0
        if some.any():
            low.append(int(span.start[some].min()) * span.unit)
            high.append(int((span.start + (span.count - 1) * span.step + 1)[some].max()) * span.unit)
    return min(low, default=0), max(high, default=1)


def best(scores: Tensor, legal: Tensor, keep: Int[Tensor, "batch group rows"]) -> Bool[Tensor, "b g rows unit"]:
    """The `keep` legal units of highest score: all above the keep-th score, then ties from the lower position."""
    most = min(largest(keep), scores.shape[-1])
    if most == 0:
        return torch.zeros_like(legal)
    smallest = torch.finfo(scores.dtype).min
    ranked = torch.where(legal, scores.clamp(min=smallest), -math.inf)
    top = ranked.topk(most, dim=-1).values
    threshold = top.gather(-1, (keep - 1).clamp(min=0, max=most - 1)[..., None])
    above = ranked > threshold
    tied = (ranked == threshold) & legal
    room = keep[..., None] - above.sum(-1, keepdim=True)
    return (above | (tied & (tied.cumsum(-1) <= room))) & (keep > 0)[..., None]
