"""Three indexers of different reach as one: a larger one nearby, a small one everywhere, pooled keys far away."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import at_least, positive
from dsa.indexers.base import Indexer
from dsa.indexers.block_mean import BlockMeanIndexer
from dsa.indexers.lightning import LightningIndexer
from dsa.ops import Band, IndexFeatures
from dsa.ops.rotary import Rotation


class MultiScaleIndexer(Indexer):
    """Scores a key by the sum of those scales that reach it, each times a factor, near and far plus a constant.

    near, a lightning indexer, scores distances t - s below `reach`; whole, another, all; distances from `far` on are
    also scored by the mean key of the token's block of `block`, as `BlockMeanIndexer` has it. Factors and constants are
    learned with the rest, so that sums over different scales can be compared. Every token has a score of its own; the
    tokens of a block far away differ by that of the whole scale.
    Parameters: of the three indexers, three factors (as exponents) and two constants.

    Args:
        d_model: width of the hidden states.
        heads, dim: of the scale that reaches everything.
        near_heads, near_dim: of the scale nearby.
        far_heads, far_dim: of the scale far away; its heads have no weights.
        reach: distances that the near scale scores, the query itself among them [tokens].
        far: the nearest distance of the far scale, from block - 1: a nearer block may not be whole yet [tokens].
        block: tokens that share a far key.
        weight: of a head of the near and the whole scale, as in LightningIndexer.
        init: standard deviation of the initial weights.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        dim: int,
        near_heads: int,
        near_dim: int,
        far_heads: int,
        far_dim: int,
        reach: int,
        far: int,
        block: int,
        weight: str = "positive",
        init: float = 0.02,
    ) -> None:
        super().__init__(init)
        self.block = positive(block, "indexer.block")
        why = "indexer.block - 1: a nearer block may not be whole yet"
        at_least(far, block - 1, "indexer.far", why)
        self.near = LightningIndexer(d_model, near_heads, near_dim, weight=weight)
        self.whole = LightningIndexer(d_model, heads, dim, weight=weight)
        self.far = BlockMeanIndexer(d_model, far_heads, far_dim, block)
        self.factors, self.constants = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2))
        last = positive(reach, "indexer.reach") - 1
        self.bands = (
            Band(near_heads, near_dim, keygroup=0, last=last),
            Band(heads, dim, keygroup=1),
            Band(far_heads, far_dim, keygroup=2, first=far, unit=block),
            Band(1, 0, keygroup=3, last=last),
            Band(1, 0, keygroup=3, first=far),
        )

    def open_at(self, position: int) -> int:
        """Those of its block, which share a far key."""
        return position % self.block

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        near, whole, far = parts = [part.score(x, rotary) for part in (self.near, self.whole, self.far)]
        dim = max(part.queries.shape[-1] for part in parts)
        one = F.pad(x.new_ones(*x.shape[:2], 1), (0, dim - 1))[:, None]
        keys = [widened(k, dim) for k in (near.keys, whole.keys, self.at_their_last(far.keys, x.shape[1]))]
        queries = [widened(part.queries, dim) for part in parts]
        weights = [
            factor * (x.new_ones(part.queries.shape[:-1]) if part.weights is None else part.weights)
            for factor, part in zip(self.factors.exp(), parts, strict=True)
        ]
        constants = self.constants.expand(*weights[0].shape[:-1], 2)
        return IndexFeatures(
            torch.cat([*queries, one[..., None, :].expand(-1, -1, -1, 2, -1)], 3),
            torch.cat([*keys, one], 1),
            torch.cat([*weights, constants], -1),
            bands=self.bands,
        )

    def at_their_last(self, keys: Float[Tensor, "batch 1 block dim"], time: int) -> Float[Tensor, "batch 1 {time} dim"]:
        """For each token the key of the last block that is whole with it, 0 before there is one: no row of keys, and no
        scale that a format gives it, knows a later token."""
        block = (torch.arange(time, device=keys.device) + 1) // self.block
        return F.pad(keys, (0, 0, 1, 0))[:, :, block]

    def projection_flops(self, length: int) -> float:
        return sum(part.projection_flops(length) for part in (self.near, self.whole, self.far))


def widened(x: Float[Tensor, "*row own"], dim: int) -> Float[Tensor, "*row {dim}"]:
    """Rows filled up with zeros, which no dot product sees."""
    return F.pad(x, (0, dim - x.shape[-1]))
