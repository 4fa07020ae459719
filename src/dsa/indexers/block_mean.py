"""Blocks scored by one mean key each, as the QSA of Qwen4-Exp does: the whole blocks compete, the open one is kept.

Classes of published models named here and beside are those of transformers.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.indexers.blocks import blocks_of, last_blocks
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation


class BlockMeanIndexer(Indexer):
    """Scores blocks by sum_j ReLU(q[t,j] . k[block]) / sqrt(dim), heads unweighted  (Qwen4ExpTextQSAIndexer).

    k[block] is the mean of the projected hidden states of its tokens, normed, then rotated as the block's first token.
    The tokens of the block that the query stands in are kept until it is whole; they count with the budget.
    d_model * (heads * dim + dim) parameters, and 2 * dim of the two norms.

    Args:
        d_model: width of the hidden states.
        heads: query heads.
        dim: width of each query head and of the shared key.
        unit: tokens of a block; 1 scores each token by itself.
        rotary_dim: how many dims the rotary embedding turns; None = all.
        init: standard deviation of the initial weights.
    """

    def __init__(
        self, d_model: int, heads: int, dim: int, unit: int, rotary_dim: int | None = None, init: float = 0.02
    ) -> None:
        super().__init__(init)
        self.heads, self.dim = positive(heads, "indexer.heads"), positive(dim, "indexer.dim")
        self.unit = positive(unit, "indexer.unit")
        self.forced = last_blocks(unit)
        self.rotary_dim = rotary_dims(rotary_dim, dim)
        self.to_query = nn.Linear(d_model, heads * dim, bias=False)
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        queries = self.query_norm(rearrange(self.to_query(x), "b t (h d) -> b 1 t h d", h=self.heads))
        means = blocks_of(x, self.unit).mean(2)  # projected once, instead of each token
        keys = self.key_norm(self.to_key(means))[:, None]
        queries = rotary(queries, self.rotary_dim) * self.dim**-0.5
        return IndexFeatures(queries, rotary.every(self.unit)(keys, self.rotary_dim))

    def projection_flops(self, length: int) -> float:
        keys, blocks = self.to_key.weight.numel(), length // self.unit
        return super().projection_flops(length) - 2.0 * keys * (length - blocks)
