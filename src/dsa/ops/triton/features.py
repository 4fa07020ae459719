"""Index features as the kernels read them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dsa.ops.scorers import IndexFeatures
from dsa.ops.triton import sizes
from dsa.ops.triton.launch import dense_last


class Index(NamedTuple):
    """Queries [batch, group, time, head, dim], keys [batch, keygroup, unit, dim] and weights [batch, group, time, head]
    without their gradients, the last dimension of the first two dense."""

    queries: Tensor
    keys: Tensor
    weights: Tensor | None
    relu: bool

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.queries, self.keys, self.weights

    @property
    def strides(self) -> tuple[int, ...]:
        """Of all dimensions but the dense one."""
        weights = (0,) * 4 if self.weights is None else self.weights.stride()
        return *self.queries.stride()[:4], *self.keys.stride()[:3], *weights

    @property
    def groups(self) -> int:
        return self.queries.shape[1]

    @property
    def key_share(self) -> int:
        """Neighbouring groups that share keys."""
        return self.groups // self.keys.shape[1]

    @property
    def constants(self) -> dict[str, Any]:
        return {"RELU": self.relu, "WEIGHTED": self.weights is not None, "DIM": sizes.power(self.queries.shape[-1])}

    def rows(self, rows: slice) -> "Index":
        """Those of some queries."""
        weights = None if self.weights is None else self.weights[:, :, rows]
        return self._replace(queries=self.queries[:, :, rows], weights=weights)


def index_of(features: IndexFeatures) -> Index:
    """The tensors of features that the kernels score, in the format that holds them: matrix units multiply it."""
    held = min(features.held, features.queries.dtype, key=lambda format: format.itemsize)
    queries, keys = (dense_last(x.to(held)) for x in (features.queries, features.keys))
    weights = None if features.weights is None else features.weights.detach()
    return Index(queries, keys, weights, features.activation == "relu")


def unusual(features: IndexFeatures) -> str | None:
    """Why the kernels do not score them, in a sentence; None if they do. Their integers are another thing."""
    if features.pool == "max" and features.unit > 1:
        return "the Triton kernels score a unit by one key, not by the best of its tokens."
    if features.bands:
        return "the Triton kernels know no heads that score some distances alone."
    if features.accumulate != torch.float32:
        return "the Triton kernels accumulate index scores in float32 alone."
    if (dim := features.queries.shape[-1]) > sizes.HEAD_DIM:
        return f"the Triton kernels score by heads of at most {sizes.HEAD_DIM} dims, not {dim}."
    return None
