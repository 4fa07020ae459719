"""What a lightning indexer makes of its projection: the definition, in PyTorch's own operations."""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from dsa.ops.rotary import Rotation


def lightning_features(
    projected: Float[Tensor, "batch time width"],
    heads: int,
    weight: Float[Tensor, "dim"],
    bias: Float[Tensor, "dim"],
    eps: float,
    rotary: Rotation,
    rotary_dim: int | None = None,
) -> tuple[
    Float[Tensor, "batch 1 time head dim"], Float[Tensor, "batch 1 time dim"], Float[Tensor, "batch 1 time rest"]
]:
    """Queries turned by their positions, keys normed and turned, and what else was projected, as it is.

    Args:
        projected: of each token the query of every head, the key, and the rest, one behind the other.
        heads: of the queries.
        weight, bias, eps: of the keys' LayerNorm.
        rotary: of the tokens' positions.
        rotary_dim: how many dims it turns; None = all.
    """
    dim = len(weight)
    queries, keys, rest = projected.split([heads * dim, dim, projected.shape[-1] - (heads + 1) * dim], -1)
    queries = rearrange(queries, "b t (h d) -> b 1 t h d", h=heads)
    keys = F.layer_norm(keys, [dim], weight, bias, eps)[:, None]
    return rotary(queries, rotary_dim), rotary(keys, rotary_dim), rest[:, None]
