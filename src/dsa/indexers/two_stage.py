"""A lightning indexer that looks for blocks first, as HISA does: fewer scores, the same weights."""

import torch

from dsa.checks import at_least, positive
from dsa.indexers.blocks import blocks_of
from dsa.indexers.lightning import LightningIndexer
from dsa.ops import IndexFeatures, Mixed, Scorer, TwoStage, Zones


class TwoStageIndexer(LightningIndexer):
    """Scores the tokens of the best blocks alone  (HISA, arXiv:2603.28458: its coarse filtering of blocks, then its
    refinement by token; transformers has no class of it).

    First every block by J[t,b] = sum_j w[t,j] * ReLU(q[t,j] . mean_s k[s]) over its tokens s, then the tokens of the
    best by I[t,s] = sum_j w[t,j] * ReLU(q[t,j] . k[s]) (DeepSeek-V3.2-Exp report, eq. 1). The first block and the
    query's own are always among them; the others compete if the pattern leaves the query a key to choose there (any
    zone of any group of heads). It learns as a lightning indexer, every token's score, and chooses blocks where keys
    are selected: nothing is trained for it.

    Args:
        d_model: width of the hidden states.
        heads: query heads.
        dim: width of each query head and of the shared key.
        block: tokens of a block.
        blocks: that are searched.
        rotary_dim: how many dims the rotary embedding turns; None = all.
        weight: of a head, as in LightningIndexer.
        init: standard deviation of the initial weights.
        latent, latent_width: as in LightningIndexer.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        dim: int,
        block: int,
        blocks: int,
        rotary_dim: int | None = None,
        weight: str = "signed",
        init: float = 0.02,
        latent: bool = False,
        latent_width: int = 0,
    ) -> None:
        super().__init__(d_model, heads, dim, rotary_dim, weight, init, latent, latent_width)
        self.block = positive(block, "indexer.block")
        self.blocks = at_least(blocks, 2, "indexer.blocks", "the first and the query's own are always searched")
        self.searched = self.block * self.blocks

    def scorer(self, features: IndexFeatures | Mixed, library: tuple[Zones, ...] = ()) -> Scorer:
        assert isinstance(features, IndexFeatures)
        means = features._replace(
            keys=blocks_of(features.keys, self.block).mean(-2), unit=self.block, integers=None, held=torch.float32
        )
        return TwoStage(features, means, self.blocks, library)
