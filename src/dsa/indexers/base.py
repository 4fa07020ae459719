"""What every indexer shares: its inputs carry no gradient, and its arithmetic is its own."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from dsa.checks import above_zero, even
from dsa.ops import IndexFeatures, Zones, own_dtypes
from dsa.ops.rotary import Rotation


class Indexer(nn.Module, ABC):
    """Hidden states -> IndexFeatures. A variant writes `score`; `forward` detaches, so that none can forget it.

    Args:
        init: standard deviation of the initial weights.

    Attributes:
        unit: tokens per selectable unit.
        forced: keys that it always keeps, as a window or the unit that is still open; contiguous zones up to the query.
    """

    unit: int = 1
    forced: Zones = ()

    def __init__(self, init: float = 0.02) -> None:
        super().__init__()
        self.init = above_zero(init, "indexer.init")

    @abstractmethod
    def score(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        """Index features of detached hidden states."""

    def forward(self, x: Float[Tensor, "batch time model"], rotary: Rotation) -> IndexFeatures:
        """Index features in float32 also under autocast: their format is the precision group's business.

        The language-model loss never trains the indexer, the indexer's loss never trains the backbone.
        """
        with own_dtypes(x):
            return self.score(x.detach().float(), rotary)._replace(unit=self.unit, forced=self.forced)

    def parameter_counts(self) -> tuple[int, int]:
        """Parameters without and of the norms, which published counts leave out."""
        norm = sum(
            p.numel() for m in self.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) for p in m.parameters()
        )
        return sum(p.numel() for p in self.parameters()) - norm, norm


def rotary_dims(rotary_dim: int | None, dim: int) -> int:
    """How many of `dim` dimensions the rotary embedding turns: all, or the first `rotary_dim`."""
    why = "the rotary embedding turns pairs of dimensions"
    if rotary_dim is None:
        return even(dim, "indexer.dim", f"{why}, unless indexer.rotary_dim names a smaller even number of them")
    if even(rotary_dim, "indexer.rotary_dim", why) > dim:
        raise ValueError(f"indexer.rotary_dim = {rotary_dim}: more than indexer.dim = {dim}.")
    return rotary_dim
