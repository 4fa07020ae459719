"""Lightning indexer of DeepSeek-V3.2: a few small query heads, one shared key, a weight for each head."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import flag, one_of, positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation

ONE = math.log(math.e - 1)  # softplus is 1 here

WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda raw: raw,
    "positive": lambda raw: F.softplus(raw + ONE),
    "absolute": torch.abs,
}
"""What becomes of a head's projected weight; with `none` there is no such projection."""


class LightningIndexer(Indexer):
    """Scores keys by sum_j w[t,j] * ReLU(q[t,j] . k[s])  (DeepSeek-V3.2-Exp report, eq. 1).

    d_model * (heads * dim + dim + heads) parameters, and 2 * dim of the key norm; heads * d_model fewer without, and
    (d_model - latent_width) * heads * dim fewer with queries from the latent.

    Args:
        d_model: width of the hidden states.
        heads: query heads H_I.
        dim: width d_I of each query head and of the shared key.
        rotary_dim: how many dims the rotary embedding turns; None = all.
        weight: of a head: signed, as published; positive: softplus, 1 at first; absolute; none: every head counts 1.
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
        queries, keys, weights = self.projected(x)
        keys = rearrange(self.key_norm(keys), "b s d -> b 1 s d")
        return IndexFeatures(rotary(queries, self.rotary_dim), rotary(keys, self.rotary_dim), weights)

    def hidden(self, x: Float[Tensor, "batch time model"]) -> Float[Tensor, "batch time width"]:
        """The hidden states among what it reads."""
        return x[..., : self.to_key.in_features]

    def projected(
        self, x: Float[Tensor, "batch time model"]
    ) -> tuple[
        Float[Tensor, "batch 1 time head dim"],
        Float[Tensor, "batch time key"],
        Float[Tensor, "batch 1 time head"] | None,
    ]:
        """Queries, keys before their norm, and the weights of the heads; without weights the queries are scaled."""
        if self.latent_width:
            queries = self.to_query(x[..., -self.latent_width :])
            keys, *raw = projections(self.hidden(x), self.to_key, self.to_weight)
        else:
            queries, keys, *raw = projections(x, self.to_query, self.to_key, self.to_weight)
        queries = rearrange(queries, "b t (h d) -> b 1 t h d", h=self.heads)
        scale = (self.heads * self.dim) ** -0.5
        if not raw:
            return queries * scale, keys, None
        return queries, keys, WEIGHTS[self.weight](rearrange(raw[0], "b t h -> b 1 t h")) * scale


def projections(x: Float[Tensor, "batch time model"], *layers: nn.Linear | None) -> tuple[Tensor, ...]:
    """What each of some linear layers makes of x, in one product; those that are not there are left out."""
    weights = [layer.weight for layer in layers if layer is not None]
    return F.linear(x, torch.cat(weights)).split([len(weight) for weight in weights], -1)
