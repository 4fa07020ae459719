"""The least an index score can be: one head, no weights."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import positive
from dsa.indexers.base import Indexer, rotary_dims
from dsa.ops import IndexFeatures
from dsa.ops.rotary import Rotation


class UltraLightIndexer(Indexer):
    """Scores keys by ReLU(q[t] . k[s]): 2 * d_model * dim parameters, and 2 * dim of the key norm.

    Args:
        d_model: width of the hidden states.
        dim: width of query and key.
        rotary_dim: how many dims the rotary embedding turns; None = all.
    """

    def __init__(self, d_model: int, dim: int, rotary_dim: int | None = None) -> None:
        super().__init__()
        self.heads, self.dim = 1, positive(dim, "indexer.dim")
        self.rotary_dim = rotary_dims(rotary_dim, dim)
        self.to_query = nn.Linear(d_model, dim, bias=False)
        self.to_key = nn.Linear(d_model, dim, bias=False)
        self.key_norm = nn.LayerNorm(dim, eps=1e-6)

    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        queries = rearrange(self.to_query(x), "b t d -> b 1 t 1 d") * self.dim**-0.5
        keys = rearrange(self.key_norm(self.to_key(x)), "b s d -> b 1 s d")
        return IndexFeatures(rotary(queries, self.rotary_dim), rotary(keys, self.rotary_dim))
