"""Rotary position embedding (Su et al. 2021, RoFormer, eq. 15), halves rotated against each other."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class CannotGoOn(NotImplementedError):
    """An indexer of blocks cannot score a pass: its first token begins none."""


class Rotation:
    """Turns vectors by their position; made once for a forward pass and shared by all layers and indexers.

    Args:
        length: number of positions.
        base: wavelength base; pair i of d dims turns by position * base^(-2i/d).
        offset: the first position, where earlier tokens were seen before.
        step: distance between positions.
    """

    def __init__(
        self, length: int, base: float, device: torch.device | None = None, *, offset: int = 0, step: int = 1
    ) -> None:
        self.position = torch.arange(offset, offset + length * step, step, device=device, dtype=torch.float32)
        self.base, self.offset = base, offset
        self.tables: dict[int, tuple[Tensor, Tensor]] = {}
        self.coarse: dict[int, Rotation] = {}
        self.parts: dict[tuple[int, int], Rotation] = {}

    def part(self, first: int, last: int) -> "Rotation":
        """The rotation of the positions from `first` up to `last`, which is not among them; earlier ones too."""
        if (first, last) not in self.parts:
            self.parts[first, last] = Rotation(last - first, self.base, self.position.device, offset=first)
        return self.parts[first, last]

    def every(self, unit: int) -> "Rotation":
        """The rotation of whole units of several tokens, each by the position of its first.

        Raises:
            CannotGoOn: the first position begins no unit.
        """
        if self.offset % unit:
            raise CannotGoOn(
                f"a pass that goes on at position {self.offset} is within a block of {unit} tokens, of which the "
                "indexer has not seen the first. Give the whole text, or a cache that this indexer filled from its "
                "beginning."
            )
        if unit not in self.coarse:
            length = len(self.position) // unit
            self.coarse[unit] = Rotation(length, self.base, self.position.device, offset=self.offset, step=unit)
        return self.coarse[unit]

    def __call__(
        self, x: Float[Tensor, "batch head time *rest dim"], dim: int | None = None, back: bool = False
    ) -> Tensor:
        """Rotate the first `dim` (None: all) of the last axis, or rotate them back; time is the third axis."""
        size = x.shape[-1] if dim is None else dim
        if size == 0:
            return x
        if size < x.shape[-1]:
            return torch.cat([self(x[..., :size], None, back), x[..., size:]], -1)
        cosine, sine = (t.view(-1, *[1] * (x.dim() - 4), size // 2).to(x.dtype) for t in self.table(size))
        return Turn.apply(x, cosine, -sine if back else sine)

    def table(self, dim: int) -> tuple[Float[Tensor, "time half"], Float[Tensor, "time half"]]:
        """Cosine and sine of the angle by which each pair of dimensions turns, at each position."""
        if dim not in self.tables:
            frequency = self.base ** (-torch.arange(0, dim, 2, device=self.position.device) / dim)
            angle = self.position[:, None] * frequency
            self.tables[dim] = angle.cos(), angle.sin()
        return self.tables[dim]


class Turn(torch.autograd.Function):
    """Turns pairs of dimensions, halves apart, with no copy of either half; its gradient turns back."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*rest dim"], cosine: Float[Tensor, "*table half"], sine: Tensor
    ) -> Float[Tensor, "*rest dim"]:
        ctx.save_for_backward(cosine, sine)
        return turned(x, cosine, sine)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return turned(gradient, cosine, -sine), None, None


def turned(
    x: Float[Tensor, "*rest dim"], cosine: Float[Tensor, "*table half"], sine: Float[Tensor, "*table half"]
) -> Float[Tensor, "*rest dim"]:
    """The halves (a, b) of the last axis as (a cos - b sin, b cos + a sin)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (first, second), (left, right) = x.chunk(2, -1), out.chunk(2, -1)
    left.copy_(first).mul_(cosine).addcmul_(second, sine, value=-1)
    right.copy_(second).mul_(cosine).addcmul_(first, sine)
    return out
