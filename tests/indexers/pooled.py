"""An indexer of a user's own that chooses blocks: one key for four tokens, and the block that is still open is kept."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.indexers import Indexer
from dsa.ops import IndexFeatures, Rotation, Zone

UNIT = 4


class MeanPooled(Indexer):
    """Scores blocks by ReLU(q[t] . mean of the block's keys), without positions."""

    unit = UNIT
    forced = (Zone(first=UNIT - 2, last=0, keep="all", align=UNIT),)  # nothing where the query ends its block

    def __init__(self, d_model: int, heads: int, dim: int, weight: str = "signed", init: float = 0.02) -> None:
        super().__init__(init)
        self.heads = heads
        self.to_query = nn.Linear(d_model, heads * dim, bias=False)
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.key_norm = nn.LayerNorm(dim)

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        queries = rearrange(self.to_query(x), "b t (h d) -> b 1 t h d", h=self.heads)
        whole = x[:, : x.shape[1] // UNIT * UNIT]
        keys = self.to_key(rearrange(whole, "b (u n) d -> b u n d", n=UNIT).mean(2))
        return IndexFeatures(queries, self.key_norm(keys)[:, None])
