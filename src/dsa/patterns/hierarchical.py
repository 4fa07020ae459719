"""Three distances: near keys always, middling ones in part, far ones a fixed number."""

from dsa.checks import positive, share
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class Hierarchical(Pattern):
    """The nearest keys always, a share of the next by index score, and a number of all earlier ones by index score.

    Args:
        local: nearest keys, all kept [tokens].
        medium: the keys before those [tokens].
        medium_keep: share of the medium keys that is kept.
        far: number kept of all earlier keys [tokens].
    """

    def __init__(self, local: int, medium: int, medium_keep: float, far: int) -> None:
        self.local = positive(local, "pattern.local")
        self.medium = positive(medium, "pattern.medium")
        self.medium_keep = share(medium_keep, "pattern.medium_keep")
        self.far = positive(far, "pattern.far")

    def zones(self) -> Zones:
        return (
            Zone(first=self.local - 1, last=0, keep="all"),
            Zone(first=self.local + self.medium - 1, last=self.local, keep=self.medium_keep),
            Zone(first=None, last=self.local + self.medium, keep=self.far),
        )
