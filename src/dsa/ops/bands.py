"""Heads that score keys at some distances alone, each with keys of its own."""

from typing import NamedTuple

from dsa.ops.cost import banded_pairs, index_pair_flops
from dsa.ops.zones import Zones, by_group


class Band(NamedTuple):
    """Heads of index features, one after the other, that score the keys of one keygroup at some distances.

    Args:
        heads: how many.
        dim: dims of theirs that are used, the rest is 0; 0: what they add is a constant, their keys are the same.
        keygroup: whose keys they score.
        first, last: nearest and farthest distance t - s that they score; None: up to the row's first token.
        unit: tokens that share a key, which stands where the last of them does; no nearer than unit - 1.
    """

    heads: int
    dim: int
    keygroup: int
    first: int = 0
    last: int | None = None
    unit: int = 1

    def cost(self, zones: Zones | tuple[Zones, ...], length: int, groups: int, forced: Zones = ()) -> float:
        """Operations of the scores of one sequence: as of any head; of a constant the addition.

        Args:
            groups: of heads that choose apart, where the zones are for all of them.
            forced: what the scorer forces.
        """
        each = by_group(zones)
        pairs = sum(banded_pairs(one, length, self.first, self.last, self.unit, forced) for one in each)
        pair = index_pair_flops(self.heads, self.dim) if self.dim else self.heads
        return float(pair * pairs * (groups if len(each) == 1 else 1))
