"""A scorer of single keys as one of units of several tokens, where each key stands for a unit."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.ops.contracts import Scorer
from dsa.ops.cost import scored_pairs
from dsa.ops.zones import Zones, by_group


@dataclass(frozen=True)
class InUnits:
    """Ranks units by what another scorer says of as many keys: the true attention over compressed entries, chance,
    nearness.

    Args:
        scorer: of single keys, one for each unit.
        unit: tokens of a unit.
    """

    scorer: Scorer
    unit: int

    @property
    def groups(self) -> int:
        return self.scorer.groups

    @property
    def forced(self) -> Zones:
        return ()

    @property
    def width(self) -> int:
        return self.scorer.width

    @property
    def shape(self) -> tuple[int, int, int] | None:
        return self.scorer.shape

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.scorer.tensors

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        return self.scorer.scores(rows, columns, offset, device)

    def of_group(self, group: int) -> "InUnits":
        return replace(self, scorer=self.scorer.of_group(group))

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """As much for a unit as for a key."""
        units, keys = (sum(scored_pairs(one, length, unit) for one in by_group(zones)) for unit in (self.unit, 1))
        return self.scorer.cost(zones, length) * units / max(keys, 1)
