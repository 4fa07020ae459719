"""A control: a trained score of the key alone, the same for every query."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive
from dsa.indexers.base import Indexer
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation


class StaticIndexer(Indexer):
    """Scores keys by u . k[s], u learned: what a selection by content can do that never looks at the query.

    d_model * dim + dim parameters, and 2 * dim of the key norm.

    Args:
        d_model: width of the hidden states.
        dim: width of the key.
        init: standard deviation of the initial weights.
    """

    def __init__(self, d_model: int, dim: int, init: float = 0.02) -> None:
        super().__init__(init)
        self.dim = positive(dim, "indexer.dim")
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.key_norm = nn.LayerNorm(dim, eps=1e-6)
        self.query = nn.Parameter(torch.zeros(dim))

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        keys = rearrange(self.key_norm(self.to_key(x)), "b s d -> b 1 s d")
        queries = self.query.expand(len(x), 1, x.shape[1], 1, self.dim)
        return IndexFeatures(queries, keys, activation="none")
