"""A scorer that ranks by what another one says."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.ops.contracts import Scorer
from dsa.ops.zones import Zones


@dataclass(frozen=True)
class OfAnother:
    """What another scorer says; a variant says what it changes.

    Args:
        scorer: the other one.
    """

    scorer: Scorer

    @property
    def unit(self) -> int:
        return self.scorer.unit

    @property
    def groups(self) -> int:
        return self.scorer.groups

    @property
    def forced(self) -> Zones:
        return self.scorer.forced

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

    def of_group(self, group: int) -> "OfAnother":
        return replace(self, scorer=self.scorer.of_group(group))

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        return self.scorer.cost(zones, length)
