"""Lightning indexer of DeepSeek-V3.2: a few small query heads, one shared key, signed head weights."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation


class LightningIndexer(Indexer):
    """Scores keys by sum_j w[t,j] * ReLU(q[t,j] . k[s])  (DeepSeek-V3.2-Exp report, eq. 1).

    d_model * (heads * dim + dim + heads) parameters, and 2 * dim of the key norm.

    Args:
        d_model: width of the hidden states.
        heads: query heads H_I.
        dim: width d_I of each query head and of the shared key.
        rotary_dim: how many dims the rotary embedding turns; None = all.
    """

    def __init__(self, d_model: int, heads: int, dim: int, rotary_dim: int | None = None) -> None:
        super().__init__()
        self.heads, self.dim = positive(heads, "indexer.heads"), positive(dim, "indexer.dim")
        self.rotary_dim = rotary_dims(rotary_dim, dim)
        self.to_query = nn.Linear(d_model, heads * dim, bias=False)
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.to_weight = nn.Linear(d_model, heads, bias=False)
        self.key_norm = nn.LayerNorm(dim, eps=1e-6)

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        projections = [self.to_query.weight, self.to_key.weight, self.to_weight.weight]
        queries, keys, weights = F.linear(x, torch.cat(projections)).split([len(p) for p in projections], -1)
        queries = rearrange(queries, "b t (h d) -> b 1 t h d", h=self.heads)
        keys = rearrange(self.key_norm(keys), "b s d -> b 1 s d")
        weights = rearrange(weights, "b t h -> b 1 t h") * (self.heads * self.dim) ** -0.5
        return IndexFeatures(rotary(queries, self.rotary_dim), rotary(keys, self.rotary_dim), weights)
