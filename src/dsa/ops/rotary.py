"""Rotary position embedding (Su et al. 2021, RoFormer, eq. 15), halves rotated against each other."""

import torch
from jaxtyping import Float
from torch import Tensor


class Rotation:
    """Turns vectors by their position; made once for a forward pass and shared by all layers and indexers.

    Args:
        length: number of positions.
        base: wavelength base; pair i of d dims turns by position * base^(-2i/d).
    """

    def __init__(self, length: int, base: float, device: torch.device | None = None) -> None:
        self.position = torch.arange(length, device=device, dtype=torch.float32)
        self.base = base
        self.tables: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Float[Tensor, "batch head time *rest dim"], dim: int | None = None) -> Tensor:
        """Rotate the first `dim` (None: all) of the last axis; time is the third axis."""
        size = x.shape[-1] if dim is None else dim
        if size == 0:
            return x
        cosine, sine = (t.view(-1, *[1] * (x.dim() - 4), size // 2).to(x.dtype) for t in self.table(size))
        a, b, rest = x[..., : size // 2], x[..., size // 2 : size], x[..., size:]
        return torch.cat([a * cosine - b * sine, b * cosine + a * sine, rest], -1)

    def table(self, dim: int) -> tuple[Float[Tensor, "time half"], Float[Tensor, "time half"]]:
        """Cosine and sine of each position and pair."""
        if dim not in self.tables:
            frequency = self.base ** (-torch.arange(0, dim, 2, device=self.position.device) / dim)
            angle = self.position[:, None] * frequency
            self.tables[dim] = angle.cos(), angle.sin()
        return self.tables[dim]
