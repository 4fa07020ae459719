"""Tokens in blocks: which make one, and which keys are kept until theirs is whole."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dsa.ops import Zone, Zones


def last_blocks(unit: int, whole: int = 0) -> Zones:
    """The keys of the block that a query stands in until it is whole, which no block's score can tell of.

    Args:
        unit: tokens of a block.
        whole: blocks that are kept whole or not: 1 keeps the query's own also where the query ends it, 2 the one before
            it too, and so on.
    """
    first = unit * whole - 1 if whole else unit - 2
    return (Zone(first=first, keep="all", align=unit),) if first >= 0 else ()


def blocks_of(x: Float[Tensor, "*batch time dim"], unit: int) -> Float[Tensor, "*batch block unit dim"]:
    """The tokens of each whole block of `unit` tokens; those after the last are left out."""
    whole = x.shape[-2] // unit * unit
    return rearrange(x[..., :whole, :], "... (u n) d -> ... u n d", n=unit)


def overlapping(
    keys: Float[Tensor, "batch pool unit key"], gates: Float[Tensor, "batch pool unit key"]
) -> tuple[Float[Tensor, "batch pool two_units dim"], Float[Tensor, "batch pool two_units dim"]]:
    """What each pool is made of: the first halves of what the pool before holds, then the second halves of its own.

    Returns: keys, and their gates before the softmax.
    """
    (ahead, own), (gate_ahead, gate_own) = keys.chunk(2, -1), gates.chunk(2, -1)
    ahead = F.pad(ahead, (0, 0, 0, 0, 1, 0))[:, :-1]
    gate_ahead = F.pad(gate_ahead, (0, 0, 0, 0, 1, 0), value=-torch.inf)[:, :-1]  # none before the first pool
    return torch.cat([ahead, own], 2), torch.cat([gate_ahead, gate_own], 2)
