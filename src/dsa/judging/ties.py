"""How often the last key that was kept is no better than one that was left out: there position alone decides."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.backbones import Observation
from dsa.ops import by_group
from dsa.ops.reference import members, to_mask
from dsa.ops.zones import spans


class Tied(NamedTuple):
    """Queries of one layer that left a key, or a block, out by its score, and how many of them kept an equal one."""

    contested: int
    tied: int


def tied(seen: Observation) -> Tied | None:
    """Of one layer in the first row of a batch; None where no index score ranked keys, or blocks, of fixed zones."""
    if seen.selection is None or seen.scorer is None or seen.choice is not None:
        return None
    length, unit = seen.selection.counts.shape[-1], seen.scorer.unit
    if not (units := length // unit):
        return None
    kept, counts = to_mask(seen.selection, length)[:1], seen.selection.counts[:1].long()
    whole = kept[..., : units * unit].unflatten(-1, (units, unit)).all(-1)
    scores = seen.scorer.scores(slice(0, length), slice(0, units))[:1].expand_as(whole)
    out, zones = Tied(0, 0), by_group(seen.zones)
    for group in range(kept.shape[1]):
        limit = counts[:, [group]]
        for span in spans(zones[group % len(zones)], limit, unit=unit, forced=seen.scorer.forced):
            if not span.forced:
                here = decided(scores[:, [group]], whole[:, [group]], members(span, units))
                out = Tied(out.contested + here.contested, out.tied + here.tied)
    return out


def decided(scores: Float[Tensor, "1 1 time unit"], kept: Tensor, inside: Tensor) -> Tied:
    """Of the units of one zone: keys, or whole blocks of them."""
    best = scores.masked_fill(kept | ~inside, -torch.inf).amax(-1)  # of those left out
    last = scores.masked_fill(~kept | ~inside, torch.inf).amin(-1)
    contested = (inside & ~kept).any(-1) & (inside & kept).any(-1)
    return Tied(int(contested.sum()), int((contested & (best == last)).sum()))


def tied_share(each: Sequence[Tied]) -> float | None:
    """Tied queries of those that left a key out."""
    contested = sum(one.contested for one in each)
    return sum(one.tied for one in each) / contested if contested else None
