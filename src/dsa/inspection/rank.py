"""Effective rank: how many dimensions a matrix of logits really uses.

exp of the entropy of the singular values, normalised to sum 1 (Roy and Vetterli, "The effective rank: a measure of
effective dimensionality", EUSIPCO 2007, eq. 3). Each query's logits are taken less their mean over keys, which
softmax does not see. No causal mask: a triangle of equal numbers alone has full rank.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(values: Float[Tensor, "value"]) -> float:
    """Effective rank of a matrix with these singular values; 0 of the zero matrix."""
    share = values.double() / values.double().sum().clamp(min=1e-300)
    return float(torch.special.entr(share).sum().exp()) if values.any() else 0.0


def logit_values(
    queries: Float[Tensor, "head query dim"], keys: Float[Tensor, "kv_head key dim"]
) -> tuple[list[Float[Tensor, "value"]], Float[Tensor, "stacked"]]:
    """Singular values of each head's logits, and of all heads' logits stacked above each other; as many heads in a row
    read one key/value head.

    The stack has a row per head and query: its rank is how many dims one key per token would need that serves all
    heads. Found from QR factors, without a matrix of size query x key.
    """
    keys = keys.double().repeat_interleave(len(queries) // len(keys), 0)
    centred = keys - keys.mean(1, keepdim=True)
    query_factors = torch.linalg.qr(queries.double(), mode="r").R
    key_factors = torch.linalg.qr(centred, mode="r").R
    single = [torch.linalg.svdvals(a @ b.mT) for a, b in zip(query_factors, key_factors, strict=True)]
    shared = torch.linalg.qr(torch.cat(tuple(centred), -1), mode="r").R
    stacked = torch.linalg.svdvals(torch.block_diag(*query_factors) @ shared.mT)
    return single, stacked


def score_values(scores: Float[Tensor, "query key"]) -> Float[Tensor, "value"]:
    """Singular values of index scores."""
    return torch.linalg.svdvals(scores.double() - scores.double().mean(-1, keepdim=True))
