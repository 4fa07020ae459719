"""What is gathered of one indexer's loss while the kernels go through the queries."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.reference import nonzero
from dsa.ops.scorers import IndexFeatures
from dsa.ops.triton import sizes
from dsa.ops.triton.features import index_of
from dsa.ops.triton.launch import launch


class Learner:
    """Losses of all rows, and sums of gradients over them.

    Args:
        features: of as many groups as learn.
        wanted: whether gradients are.
    """

    def __init__(self, features: IndexFeatures, wanted: bool) -> None:
        self.features, self.index, self.wanted = features, index_of(features), wanted
        batch, groups, time, *_ = self.index.queries.shape
        self.losses, self.valid = (self.index.queries.new_zeros(batch, groups, time, dtype=torch.float32) for _ in "ab")
        self.grads: list[Tensor | None] = [
            None if x is None or not wanted else torch.zeros(x.shape, dtype=torch.float32, device=x.device)
            for x in self.index.tensors
        ]

    def diverge(
        self,
        masses: Float[Tensor, "batch some row pair"],
        scores: Float[Tensor, "batch group row pair"],
        stops: Int[Tensor, "some_batch any row"],
        rows: slice,
    ) -> Float[Tensor, "batch group row pair"] | None:
        """Takes the losses of these queries, the first `stops` of whose pairs are in scope; returns the gradients by
        the scores, if gradients are wanted.

        Args:
            masses: of one group, or of each, and so are the stops.
        """
        from dsa.ops.triton import loss_kernels

        batch, groups, count, width = scores.shape
        lines, masses = batch * groups * count, masses.contiguous()
        slopes = torch.empty_like(scores) if self.wanted else None
        launch(
            loss_kernels.divergence, -(-lines // sizes.ROWS),
            (masses, scores, stops, self.losses[:, :, rows], self.valid[:, :, rows], slopes),
            *masses.expand(-1, groups, -1, -1).stride()[:3], *stops.expand(scores.shape[:3]).stride(),
            groups, count, width, self.losses.shape[2], lines,
            SLOPES=self.wanted, ROWS=sizes.ROWS, SPAN=min(sizes.SPAN, sizes.power(width)),
        )  # fmt: skip
        return slopes

    def mean(self) -> tuple[Float[Tensor, ""], list[Tensor | None]]:
        """The loss, and its gradients by queries, keys and weights, None where none are wanted."""
        count = nonzero(self.valid.sum())
        return self.losses.sum() / count, [None if grad is None else grad.div_(count) for grad in self.grads]
