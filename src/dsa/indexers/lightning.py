"""Lightning indexer of DeepSeek-V3.2: a few small query heads, one shared key, a weight for each head."""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import flag, one_of, positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.ops import IndexFeatures, lightning_features
from dsa.ops.rotary import Rotation

ONE = math.log(math.e - 1)  # softplus is 1 here

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda raw: raw,
    "positive": lambda raw: F.softplus(raw + ONE),
    "negative": lambda raw: -F.softplus(raw + ONE),
    "absolute": torch.abs,
}
"""What becomes of a head's projected weight; with `none` there is no such projection."""


class LightningIndexer(Indexer):
    """Scores keys by sum_j w[t,j] * ReLU(q[t,j] . k[s])  (DeepSeek-V3.2-Exp report, eq. 1; transformers'
    DeepseekV32Indexer and GlmMoeDsaIndexer).

    d_model * (heads * dim + dim + heads) parameters, and 2 * dim of the key norm; heads * d_model fewer without, and
    (d_model - latent_width) * heads * dim fewer with queries from the latent.

    A subclass whose key norm is no LayerNorm with a bias writes `score` itself.

    Args:
        d_model: width of the hidden states.
        heads: query heads H_I.
        dim: width d_I of each query head and of the shared key.
        rotary_dim: how many dims the rotary embedding turns; None = all.
        weight: of a head: signed, as published; positive: softplus, 1 at first; negative: less that; absolute; none:
            every head counts 1.
        init: standard deviation of the initial weights.
        latent: queries are projected from the layer's query latent, as published; else from the hidden states.
        latent_width: of that latent, which stands behind the hidden states (`reading`).
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        dim: int,
        rotary_dim: int | None = None,
        weight: str = "signed",
        init: float = 0.02,
        latent: bool = False,
        latent_width: int = 0,
    ) -> None:
        super().__init__(init)
        self.heads, self.dim = positive(heads, "indexer.heads"), positive(dim, "indexer.dim")
        self.rotary_dim = rotary_dims(rotary_dim, dim)
        self.weight = one_of(weight, (*WEIGHTS, "none"), "indexer.weight")
        self.latent_width = positive(latent_width, "latent_width") if flag(latent, "indexer.latent") else 0
        self.to_query = nn.Linear(self.latent_width or d_model, heads * dim, bias=False)
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.to_weight = None if weight == "none" else nn.Linear(d_model, heads, bias=False)
        self.key_norm: nn.Module = nn.LayerNorm(dim, eps=1e-6)

    @classmethod
    def given(cls, width: int, kv_heads: int, latent: int) -> dict[str, int]:
        return {**super().given(width, kv_heads, latent), "latent_width": latent}

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        norm = cast(nn.LayerNorm, self.key_norm)  # pools, which have another, score in a way of their own
        queries, keys, raw = lightning_features(
            self.projected(x), self.heads, norm.weight, norm.bias, norm.eps, rotary, self.rotary_dim,
            backend=self.backend,
        )  # fmt: skip
        queries, weights = self.weighed(queries, raw)
        return IndexFeatures(queries, keys, weights)

    def hidden(self, x: Float[Tensor, "batch time model"]) -> Float[Tensor, "batch time width"]:
        """The hidden states among what it reads."""
        return x[..., : self.to_key.in_features]

    def projected(self, x: Float[Tensor, "batch time model"]) -> Float[Tensor, "batch time width"]:
        """Queries of all heads, keys before their norm, and what weights are made of, one behind the other."""
        if not self.latent_width:
            return product(x, self.to_query, self.to_key, self.to_weight)
        queries = self.to_query(x[..., -self.latent_width :])
        return torch.cat([queries, product(self.hidden(x), self.to_key, self.to_weight)], -1)

    def weighed(
        self, queries: Float[Tensor, "batch 1 time head dim"], raw: Float[Tensor, "batch 1 time rest"]
    ) -> tuple[Float[Tensor, "batch 1 time head dim"], Float[Tensor, "batch 1 time head"] | None]:
        """Queries, and the weights of their heads; without weights the queries are scaled."""
        scale = (self.heads * self.dim) ** -0.5
        if self.to_weight is None:
            return queries * scale, None
        return queries, WEIGHTS[self.weight](raw) * scale


def product(x: Float[Tensor, "batch time model"], *layers: nn.Linear | None) -> Float[Tensor, "batch time width"]:
    """What some linear layers make of x, side by side, in one product; those that are not there add nothing."""
    return F.linear(x, torch.cat([layer.weight for layer in layers if layer is not None]))
