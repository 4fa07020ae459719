"""How much of what a layer would select an earlier layer's selection already holds."""

import torch
from torch import Tensor

from dsa.inspection.query_blocks import QueryBlock


class Held:
    """Of each layer's contested queries: by how far the keys that another layer chose, the same or an earlier one,
    would do.

    `overlap` is the share of the layer's own keys among them, `mass` its dense attention probability on them.
    """

    def __init__(self, layers: int) -> None:
        self.sums = torch.zeros(2, layers, layers, dtype=torch.float64)
        self.queries = torch.zeros(layers, dtype=torch.float64)

    def add(self, layers: list[QueryBlock]) -> None:
        """Count the same queries of every layer; groups of heads averaged."""
        for own, layer in enumerate(layers):
            inside = layer.contested
            self.queries[own] += inside.sum()
            for other, earlier in enumerate(layers[: own + 1]):
                common = (layer.kept & earlier.kept).sum(-1) / layer.kept.sum(-1).clamp(min=1)
                mass = (layer.attention * earlier.kept).sum(-1)
                self.sums[:, other, own] += torch.stack([x.double()[inside].sum() for x in (common, mass)])

    def over(self, leader_of: list[int]) -> tuple[float, float | None]:
        """Mean mass of all layers on the keys of their leaders, and mean overlap of those that follow another; None
        where none does."""
        overlap, mass = self.means()
        layers = range(len(leader_of))
        followers = [own for own in layers if leader_of[own] != own]
        masses = [float(mass[leader_of[own], own]) for own in layers]
        shares = [float(overlap[leader_of[own], own]) for own in followers]
        return sum(masses) / len(masses), sum(shares) / len(shares) if shares else None

    def means(self) -> Tensor:
        """Overlap and mass by leader and follower [2, leader, follower]; 0 where the leader is the later one."""
        return self.sums / self.queries
