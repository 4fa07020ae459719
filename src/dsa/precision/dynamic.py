"""The coarsest format that each row can bear."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.checks import share
from dsa.ops import IndexFeatures
from dsa.precision.base import Bits, Precision
from dsa.precision.by_part import bits_of, rounded

LADDER = ("int4", "int8", "float16", "float32")  # the coarsest first; the last bears everything
OPERATIONS = 2 + 3 * (len(LADDER) - 1)  # a number: square and sum once, difference, square and sum of each but the last


class Dynamic(Precision):
    """Every query head and every key in the coarsest of int4, int8, float16 and float32 that keeps it within an error.

    What it measures is how hard a row is to hold: the distance between the row and the same row rounded. A row is one
    token's alone, so that nothing depends on any other token. A dot product is then off by at most
    (2 error + error^2) times the lengths of both rows.

    Args:
        error: the most that rounding may move a row, in shares of its length.
    """

    def __init__(self, error: float) -> None:
        self.error = share(error, "precision.error")

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        return features._replace(queries=self.held(features.queries)[0], keys=self.held(features.keys)[0])

    def bits(self, features: IndexFeatures) -> Bits:
        widths = torch.tensor([float(bits_of(name)) for name in LADDER], device=features.queries.device)
        return Bits(*(widths[self.held(x.detach())[1]] for x in (features.queries, features.keys)))

    def flops(self, numbers: int) -> float:
        return float(OPERATIONS * numbers)

    def held(self, x: Float[Tensor, "*row dim"]) -> tuple[Float[Tensor, "*row dim"], Int[Tensor, "*row"]]:
        """Each row in its format, and which of the ladder that is."""
        allowed = self.error * x.detach().norm(dim=-1)
        out, rung = x, torch.full(x.shape[:-1], len(LADDER) - 1, device=x.device)
        for number in reversed(range(len(LADDER) - 1)):
            coarser = rounded(x, LADDER[number])
            fits = (coarser - x).detach().norm(dim=-1) <= allowed
            out, rung = torch.where(fits[..., None], coarser, out), torch.where(fits, number, rung)
        return out, rung
