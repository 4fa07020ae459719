"""Indexer losses on the Triton kernels. Where gradients are wanted they are computed together with the losses, so that
the target is computed once; nothing of size time x keys is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.contracts import Selection
from dsa.ops.reference import checked_features
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.triton.dense_loss import over_all_keys
from dsa.ops.triton.learner import Learner
from dsa.ops.triton.selected_loss import over_selection


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`, in float32."""
    features = checked_features(features, target, selection)
    return Losses.apply([features], target, selection, *features[:3])[0]


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """As `reference.indexer_losses`, in float32; the target is computed once for all that learn units of one size."""
    features = [checked_features(each, target, None) for each in features]
    return list(Losses.apply(features, target, None, *(x for each in features for x in each[:3])))


class Losses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Sequence[IndexFeatures], target: TrueAttention | Tensor, selection: Selection | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        wanted = [any(ctx.needs_input_grad[i : i + 3]) for i in range(3, 3 + len(tensors), 3)]
        learners = [Learner(each, some) for each, some in zip(features, wanted, strict=True)]
        if selection is None:
            over_all_keys(learners, target)
        else:
            (learner,) = learners
            over_selection(learner, target, selection)
        losses, grads = zip(*(learner.mean() for learner in learners), strict=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*(grad for each in grads for grad in each))
        ctx.dtypes = [None if x is None else x.dtype for x in tensors]
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        by_tensor = [x for x in upstream for _ in range(3)]
        grads = zip(ctx.saved_tensors, by_tensor, ctx.dtypes, strict=True)
        return None, None, None, *(
            None if grad is None or x is None else (grad * x).to(dtype) for grad, x, dtype in grads
        )  # fmt: skip
