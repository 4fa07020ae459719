"""A scorer of single keys as one of units of several tokens, where each key stands for a unit."""

from dataclasses import dataclass

from dsa.ops.cost import scored_pairs
from dsa.ops.of_another import OfAnother
from dsa.ops.zones import Zones, by_group


@dataclass(frozen=True)
class InUnits(OfAnother):
    """Ranks units by what another scorer says of as many keys: the true attention over compressed entries, chance,
    nearness. None of them is forced.

    Args:
        tokens: of a unit.
    """

    tokens: int

    @property
    def unit(self) -> int:
        return self.tokens

    @property
    def forced(self) -> Zones:
        return ()

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """As much for a unit as for a key."""
        units, keys = (sum(scored_pairs(one, length, unit) for one in by_group(zones)) for unit in (self.tokens, 1))
        return self.scorer.cost(zones, length) * units / max(keys, 1)
