"""Every n-th key back from the query."""

from dsa.checks import positive, share
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class Strided(Pattern):
    """Every `stride`-th key counted back from the query, a share of them by index score; the query itself always.

    Args:
        stride: distance between neighbouring keys [tokens].
        keep: share of the earlier strided keys that is kept.
    """

    def __init__(self, stride: int, keep: float) -> None:
        self.stride = positive(stride, "pattern.stride")
        self.keep = share(keep, "pattern.keep")

    def zones(self) -> Zones:
        return (
            Zone(first=0, last=0, keep="all"),
            Zone(first=None, last=self.stride, step=self.stride, keep=self.keep),
        )
