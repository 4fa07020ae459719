"""The attention layer that is measured: its shapes, its formats, and tensors to compute with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dsa.bench.measure import CPU
from dsa.ops import IndexFeatures


@dataclass(frozen=True)
class Layer:
    """One layer, and where it computes.

    Args:
        k: keys that a query keeps.
        index: heads and dims of the indexer, which computes in float32.
        heads, kv_heads: of queries, and of keys and values (a divisor); dim: of each.
        batch: rows.
        backend: of dsa.ops.
        dtype: of queries, keys and values.
    """

    k: int
    index: tuple[int, int]
    heads: int
    kv_heads: int
    dim: int
    batch: int = 1
    backend: str = "auto"
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def called(self) -> str:
        """The name of its dtype."""
        return str(self.dtype).removeprefix("torch.")

    def limit(self, length: int) -> Tensor:
        """The budget of each query [batch, 1, time]."""
        return torch.full((self.batch, 1, length), self.k, device=self.device)

    def projections(self, length: int) -> list[Tensor]:
        """q, k, v and a gradient of the output, laid out as linear layers give them."""
        torch.manual_seed(0)

        def made(heads: int) -> Tensor:
            x = torch.randn(self.batch, length, heads * self.dim, device=self.device)
            return x.to(self.dtype).unflatten(2, (heads, self.dim)).transpose(1, 2)

        return [made(n).requires_grad_() for n in (self.heads, self.kv_heads, self.kv_heads)] + [made(self.heads)]

    def features(self, length: int) -> IndexFeatures:
        """Independent normal features: neighbouring queries share few keys, which is the hardest case for a cache."""
        torch.manual_seed(1)
        (heads, dim), batch = self.index, self.batch
        shapes = (batch, 1, length, heads, dim), (batch, 1, length, dim), (batch, 1, length, heads)
        queries, keys, weights = (torch.randn(shape, device=self.device) for shape in shapes)
        return IndexFeatures(queries.requires_grad_(), keys.requires_grad_(), weights.abs().requires_grad_())
