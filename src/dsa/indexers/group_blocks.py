"""Blocks scored from their tokens' keys, and each key/value head chooses its own: MiniMax M3, MoBA, Quest."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import at_least, flag, one_of, positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.indexers.blocks import blocks_of, last_blocks
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation

POOLS = ("max", "mean", "bounds")


class GroupBlockIndexer(Indexer):
    """Scores blocks for each key/value head apart, heads unweighted and without ReLU; pool says how.

    max: max_s q[t] . k[s] over the tokens s of the block (MiniMax M3: transformers'
    MiniMaxM3VLIndexer). mean: q[t] . mean_s k[s] (Mixture of Block Attention, arXiv:2502.13189, eqs. 5 and 6). bounds:
    sum_i max(q[t,i] * max_s k[s,i], q[t,i] * min_s k[s,i]), the least that no q[t] . k[s] exceeds (Quest,
    arXiv:2406.10774, algorithm 1). transformers has no class of these two. All divided by sqrt(dim), which ranks alike,
    and summed over a group's heads. Keys are rotated before they are pooled. MoBA and Quest take the attention's own
    queries and keys; here they are projections for the purpose, which the indexer's loss trains.
    d_model * dim * (kv_heads * heads + 1, or kv_heads where each has its key) parameters, and 2 * dim of the norms.

    Args:
        d_model: width of the hidden states.
        kv_heads: key/value heads of the attention layer: so many selections.
        heads: query heads of each.
        dim: width of each query head and of a key.
        unit: tokens of a block.
        pool: max, mean or bounds.
        shared_key: one key for all groups; false: each has its own.
        norm: queries and keys go through an RMS norm.
        local: blocks up to the query's own that are kept, within the budget; 0 keeps its own only while it is open.
        rotary_dim: how many dims the rotary embedding turns; None = all.
        init: standard deviation of the initial weights.
    """

    def __init__(
        self,
        d_model: int,
        kv_heads: int,
        heads: int,
        dim: int,
        unit: int,
        pool: str,
        shared_key: bool,
        norm: bool,
        local: int,
        rotary_dim: int | None = None,
        init: float = 0.02,
    ) -> None:
        super().__init__(init)
        self.groups, self.heads, self.dim = kv_heads, positive(heads, "indexer.heads"), positive(dim, "indexer.dim")
        self.unit, self.pool = positive(unit, "indexer.unit"), one_of(pool, POOLS, "indexer.pool")
        self.forced = last_blocks(unit, at_least(local, 0, "indexer.local"))
        self.rotary_dim = rotary_dims(rotary_dim, dim)
        keys = 1 if flag(shared_key, "indexer.shared_key") else kv_heads
        self.to_query = nn.Linear(d_model, kv_heads * heads * dim, bias=False)
        self.to_key = nn.Linear(d_model, keys * dim, bias=False)
        normed = flag(norm, "indexer.norm")
        self.query_norm, self.key_norm = (nn.RMSNorm(dim, eps=1e-6) if normed else nn.Identity() for _ in range(2))

    @classmethod
    def given(cls, width: int, kv_heads: int, latent: int) -> dict[str, int]:
        return {**super().given(width, kv_heads, latent), "kv_heads": kv_heads}

    def open_at(self, position: int) -> int:
        """None where each token has its key."""
        return 0 if self.pool == "max" else super().open_at(position)

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        queries = rearrange(self.to_query(x), "b t (g h d) -> b g t h d", g=self.groups, d=self.dim)
        keys = rearrange(self.to_key(x), "b t (g d) -> b g t d", d=self.dim)
        queries = rotary(self.query_norm(queries), self.rotary_dim) * self.dim**-0.5
        keys = rotary(self.key_norm(keys), self.rotary_dim)
        if self.pool == "max":
            return IndexFeatures(queries, keys, activation="none", pool="max")
        blocks = blocks_of(keys, self.unit)
        if self.pool == "mean":
            return IndexFeatures(queries, blocks.mean(-2), activation="none")
        # max(q a, q b) is relu(q) a - relu(-q) b where a >= b: the bound is one dot product of twice the dims
        queries = torch.cat([queries.relu(), -(-queries).relu()], -1)
        return IndexFeatures(queries, torch.cat([blocks.amax(-2), blocks.amin(-2)], -1), activation="none")
