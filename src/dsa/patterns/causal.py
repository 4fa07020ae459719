"""Every earlier key competes."""

from dsa.checks import positive
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class Causal(Pattern):
    """All keys up to the query, by index score (DeepSeek-V3.2-Exp report, section 2.1).

    Args:
        budget: keys kept in all, unless a selector says otherwise [tokens].
    """

    def __init__(self, budget: int) -> None:
        self.budget = positive(budget, "pattern.budget")

    def zones(self) -> Zones:
        return (Zone(first=None, last=0, keep="selector"),)
