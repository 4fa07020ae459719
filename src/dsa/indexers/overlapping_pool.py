"""Pools of tokens by one key each, made of their tokens and of those of the pool before, as DeepSeek-V4's CSA does."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dsa.indexers.blocks import overlapping
from dsa.indexers.gated_pool import GatedPoolIndexer


class OverlappingPoolIndexer(GatedPoolIndexer):
    """Scores pools by sum_j w[t,j] * ReLU(q[t,j] . k[pool])  (DeepSeek-V4 report, eqs. 13 to 17; transformers'
    DeepseekV4Indexer).

    Each token has two keys and two gates, one pair for its own pool and one for the next. k[pool] is the gated mean of
    the own keys of its tokens and of the other keys of the tokens before it, normed, then rotated as the pool's first
    token. There attention reads a compressed entry for a chosen pool, here the pool's tokens; with model.kv=csa an
    entry too.
    d_model * (heads * dim + 4 * dim + heads) + 2 * unit * dim parameters, and dim of the key norm.

    Args: as GatedPoolIndexer.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        dim: int,
        unit: int,
        rotary_dim: int | None = None,
        weight: str = "signed",
        init: float = 0.02,
        latent: bool = False,
        latent_width: int = 0,
    ) -> None:
        super().__init__(d_model, heads, dim, unit, rotary_dim, weight, init, latent, latent_width)
        self.to_key, self.to_gate = (nn.Linear(d_model, 2 * dim, bias=False) for _ in range(2))
        self.place = nn.Parameter(torch.zeros(unit, 2 * dim))
        self.key_norm = nn.RMSNorm(dim, eps=1e-6)

    def open_at(self, position: int) -> int:
        """The pool before is among them."""
        return min(super().open_at(position) + self.unit, position)

    def pooled(
        self, keys: Float[Tensor, "batch pool unit key"], gates: Float[Tensor, "batch pool unit key"]
    ) -> Float[Tensor, "batch pool dim"]:
        keys, gates = overlapping(keys, gates)
        return self.key_norm((gates.softmax(2) * keys).sum(2))
