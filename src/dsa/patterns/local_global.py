"""Recent keys always, distant keys by index score."""

from dsa.checks import at_least, positive
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class LocalGlobal(Pattern):
    """Recent keys always, distant keys by index score.

    Args:
        window: keys kept up to and including the query [tokens].
        budget: keys kept in all, unless a selector says otherwise [tokens].
    """

    def __init__(self, window: int, budget: int) -> None:
        self.window = positive(window, "pattern.window")
        self.budget = at_least(budget, window, "pattern.budget", "it counts the window's keys too")

    def zones(self) -> Zones:
        return (
            Zone(first=self.window - 1, last=0, keep="all"),
            Zone(first=None, last=self.window, keep="selector"),
        )
