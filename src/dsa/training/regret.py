"""What the picker of an indexer made of several learns in the warm-up: how much each of them loses in a row."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dsa import ops
from dsa.indexers import Picking
from dsa.indexers.picking import from_query
from dsa.ops import IndexFeatures, TrueAttention


def regret_loss(
    indexer: Picking,
    x: Float[Tensor, "batch time width"],
    each: Sequence[IndexFeatures],
    target: TrueAttention,
    backend: str,
) -> Float[Tensor, ""]:
    """Mean square of the regret that is predicted less that which is measured, over rows and members [nats^2].

    Args:
        x: hidden states.
        each: of the members, in order.
        target: the attention that they learn.
    """
    lost = lost_by_row(each, target, indexer.prefix, backend)
    return (indexer.regret(x[:, : indexer.prefix]) - (lost - lost[:, -1:])).square().mean()


@torch.no_grad()
def lost_by_row(
    each: Sequence[IndexFeatures], target: TrueAttention, prefix: int, backend: str
) -> Float[Tensor, "batch member"]:
    """KL of the attention to softmax(I) over every earlier key, the mean over a row's queries after its first `prefix`
    tokens [nats]."""
    out = []
    for row in torch.arange(target.queries.shape[0], device=target.queries.device)[:, None]:
        own = ops.part_of(target, row, prefix, target.queries.shape[2])
        out.append(torch.stack(ops.indexer_losses([late(one, row, prefix) for one in each], own, backend=backend)))
    return torch.stack(out)


def late(features: IndexFeatures, row: Tensor, first: int) -> IndexFeatures:
    """One row's queries from the first, and all its keys."""
    own = from_query(features, first)
    weights = None if own.weights is None else own.weights[row]
    return own._replace(queries=own.queries[row], keys=own.keys[row], weights=weights)
