"""Many indexers that learn the attention of one model at the same time: their losses, the attention computed once."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from dsa.ops.dispatch import learning, own_dtypes
from dsa.ops.opaque import opaque
from dsa.ops.scorers import IndexFeatures, TrueAttention


@opaque
def indexer_losses(
    features: Sequence[IndexFeatures],
    target: TrueAttention | Float[Tensor, "batch group time key"],
    *,
    backend: str = "auto",
) -> list[Float[Tensor, ""]]:
    """For each indexer KL of the attention to softmax(I) over all causal keys: see `dsa.ops.reference`.

    Each loss and its gradients are the same bit for bit whichever other indexers are given.

    Args:
        features: of any shapes and formats that agree with the target in batch, time and keys.
        target: has one group, or as many as each of the features.

    Returns:
        The losses in nats, in order: means over rows.

    Raises:
        ValueError: features and target do not fit together.
    """
    features = [each._replace(integers=None) for each in features]
    with own_dtypes(target if isinstance(target, Tensor) else target.queries):
        backends = [learning(backend, each, target, dense=True) for each in features]
        losses: dict[int, Float[Tensor, ""]] = {}
        for ops in {own.name: own for own in backends}.values():
            served = [n for n, own in enumerate(backends) if own.name == ops.name]
            losses.update(zip(served, ops.indexer_losses([features[n] for n in served], target), strict=True))
    return [losses[n] for n in range(len(features))]
