"""How far the selections of two layers agree."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsa.inspection.query_blocks import QueryBlock


class Overlap:
    """Overlap coefficients |A and B| / min(|A|, |B|) of every two layers, averaged over queries contested in both.

    `selected` of what was kept, `best` of the keys of highest attention, `chance` of as many keys drawn at random.
    """

    def __init__(self, layers: int) -> None:
        self.sums = torch.zeros(3, layers, layers, dtype=torch.float64)
        self.queries = torch.zeros(layers, layers, dtype=torch.float64)

    def add(self, layers: list[QueryBlock]) -> None:
        """Count the same queries of every layer."""
        for a, one in enumerate(layers):
            for b, other in enumerate(layers):
                both = one.contested & other.contested
                keys = torch.arange(one.first + 1, one.first + 1 + both.shape[-1], device=both.device)
                most = torch.maximum(one.kept.sum(-1), other.kept.sum(-1))
                chance = most / keys if a != b else torch.ones_like(most, dtype=torch.float32)
                parts = (coefficient(one.kept, other.kept), coefficient(one.best, other.best), chance)
                self.sums[:, a, b] += torch.stack([part.double()[both].sum() for part in parts])
                self.queries[a, b] += both.sum()

    def matrices(self) -> dict[str, list[list[float | None]]]:
        """Means by pair of layers; None where no query is contested in both."""
        means = self.sums / self.queries
        named = zip(("selected", "best", "chance"), means, strict=True)
        return {
            name: [[None if value != value else value for value in row] for row in matrix.tolist()]
            for name, matrix in named
        }


def coefficient(a: Bool[Tensor, "group query key"], b: Bool[Tensor, "group query key"]) -> Float[Tensor, "group query"]:
    """Overlap coefficient of two sets of keys per query; 0 where one is empty."""
    least = torch.minimum(a.sum(-1), b.sum(-1))
    return (a & b).sum(-1) / least.clamp(min=1)
