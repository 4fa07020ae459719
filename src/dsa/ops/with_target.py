"""Attention that gives itself as well, for a backend that keeps nothing more of it."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from dsa.ops.contracts import Selection
from dsa.ops.scorers import TrueAttention


def with_target(attend: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, TrueAttention]]:
    """A backend's `attend_with_target`, from its `attend`."""

    def attend_with_target(
        q: Float[Tensor, "batch head time dim"],
        k: Float[Tensor, "batch kv_head key dim"],
        v: Float[Tensor, "batch kv_head key dim"],
        selection: Selection,
        groups: int = 1,
        sink: Float[Tensor, "head"] | None = None,
        *,
        scale: float | None = None,
        cap: float | None = None,
    ) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
        """As `attend`, and the attention itself: what an indexer loss over this selection is to reach."""
        out, logsumexp = attend(q, k, v, selection, sink, scale=scale, cap=cap)
        return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups, scale=scale, cap=cap)

    return attend_with_target
