"""Pools of tokens by one key each, a gated mean of their keys, as the k-pool indexer of GLM-5.3-Flash does."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive
from dsa.indexers.blocks import blocks_of, last_blocks
from dsa.indexers.lightning import LightningIndexer
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation


class GatedPoolIndexer(LightningIndexer):
    """Scores pools by sum_j w[t,j] * ReLU(q[t,j] . k[pool])  (transformers' Glm5NextTextIndexer).

    k[pool] = sum_n softmax_n(gate[n] + place[n]) * k[n], for each dim apart: the mean of its tokens' normed keys, in
    which each counts as much as a projection of its hidden state and its place in the pool say. The tokens of the pool
    that the query stands in are kept until it is whole; they count with the budget.
    d_model * (heads * dim + 2 * dim + heads) + unit * dim parameters, and 2 * dim of the key norm.

    Args:
        d_model: width of the hidden states.
        heads: query heads.
        dim: width of each query head and of the shared key.
        unit: tokens of a pool.
        rotary_dim: how many dims the rotary embedding turns, the pool as its first token; None = all.
        weight: of a head, as in LightningIndexer.
        init: standard deviation of the initial weights.
        latent, latent_width: as in LightningIndexer.
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
        super().__init__(d_model, heads, dim, rotary_dim, weight, init, latent, latent_width)
        self.unit = positive(unit, "indexer.unit")
        self.forced = last_blocks(unit)
        self.to_gate = nn.Linear(d_model, dim, bias=False)
        self.place = nn.Parameter(torch.zeros(unit, dim))

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        widths = self.to_query.out_features, self.to_key.out_features
        queries, keys, raw = self.projected(x).tensor_split([widths[0], sum(widths)], -1)
        queries, weights = self.weighed(rearrange(queries, "b t (h d) -> b 1 t h d", h=self.heads), raw[:, None])
        keys, gates = (blocks_of(each, self.unit) for each in (keys, self.to_gate(self.hidden(x))))
        pooled = rearrange(self.pooled(keys, gates + self.place), "b u d -> b 1 u d")
        pooled = rotary.every(self.unit)(pooled, self.rotary_dim)
        return IndexFeatures(rotary(queries, self.rotary_dim), pooled, weights)

    def pooled(
        self, keys: Float[Tensor, "batch pool unit key"], gates: Float[Tensor, "batch pool unit key"]
    ) -> Float[Tensor, "batch pool dim"]:
        """One key for each whole pool, of its tokens' keys and what their gates say."""
        return (gates.softmax(2) * self.key_norm(keys)).sum(2)
