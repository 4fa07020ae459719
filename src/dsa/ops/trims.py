"""Dropping what a trim rule drops, slot by slot of a selection."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.ops.contracts import ScoredRows, Selection, Trim


def trimmed(
    trim: Trim,
    selection: Selection,
    unit: int,
    scores: Float[Tensor, "batch group time slot"],
    logsumexp: Float[Tensor, "batch group time"],
    entropy: Float[Tensor, "batch group time"],
    forced_logsumexp: Float[Tensor, "batch group time"],
) -> Selection:
    """Keep as many of the kept keys as `trim` says, in whole units, dropping the lowest scored ones; in as many slots.

    Args:
        scores: of each kept key's unit, NaN where it is forced.
        logsumexp, entropy: of each row, over the units that it can see.
        forced_logsumexp: over the forced keys that it keeps.
    """
    used = selection.positions >= 0
    is_forced = scores.isnan() & used
    forced = is_forced.sum(-1)
    smallest = torch.finfo(scores.dtype).min
    competing = torch.where(used & ~is_forced, scores.clamp(min=smallest) - math.log(unit), -math.inf)
    ranked = competing.sort(dim=-1, descending=True, stable=True)
    spread = entropy + torch.where(logsumexp > -math.inf, math.log(unit), 0.0)
    rows = ScoredRows(ranked.values, forced, forced_logsumexp, logsumexp, spread)
    keep = -(-(trim(rows) - forced) // unit) * unit
    slot = torch.arange(scores.shape[-1], device=scores.device)
    place = slot < keep.clamp(min=0)[..., None]
    stays = (torch.zeros_like(used).scatter(-1, ranked.indices, place) & used) | is_forced
    positions = torch.where(stays, selection.positions, torch.iinfo(torch.int32).max).sort(dim=-1).values
    counts = stays.sum(-1)
    return Selection(torch.where(slot < counts[..., None], positions, -1), counts.int())
