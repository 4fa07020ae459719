"""A row's first keys always, with or without recent ones; the rest by index score."""

from dsa.checks import at_least, positive
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class Sinks(Pattern):
    """A row's first keys always, recent keys always, all others by index score.

    Trained models rest attention that has nowhere to go on a row's first tokens, whatever these say (Xiao et al. 2023,
    arXiv:2309.17453).

    Args:
        sinks: how many of the first keys are kept [tokens].
        window: keys kept up to and including the query; 0 = none for being near [tokens].
        budget: keys kept in all, unless a selector says otherwise [tokens].
    """

    def __init__(self, sinks: int, window: int, budget: int) -> None:
        self.sinks = positive(sinks, "pattern.sinks")
        self.window = at_least(window, 0, "pattern.window")
        self.budget = at_least(budget, sinks + window, "pattern.budget", "it counts sinks and window too")

    def zones(self) -> Zones:
        recent = (Zone(first=self.window - 1, last=0, keep="all", begin=self.sinks),) if self.window else ()
        return (
            Zone(first=None, last=0, keep="all", end=self.sinks),
            *recent,
            Zone(first=None, last=self.window, keep="selector", begin=self.sinks),
        )
