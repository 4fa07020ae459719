"""Overlapping windows at fixed places; a query competes within the earliest that contains it."""

from dsa.checks import positive, share
from dsa.ops import Zone, Zones
from dsa.patterns.base import Pattern


class SlidingWindow(Pattern):
    """Windows of `window` tokens begin every `stride` tokens; a query sees the earliest one that contains it.

    It sees that window up to itself, so between window - stride + 1 and window keys, and keeps a share by index score.

    Args:
        window: length of each window [tokens].
        stride: distance between the beginnings of neighbouring windows [tokens].
        keep: share of the seen keys that is kept.
    """

    def __init__(self, window: int, stride: int, keep: float) -> None:
        self.window = positive(window, "pattern.window")
        self.stride = positive(stride, "pattern.stride")
        if stride > window:
            raise ValueError(
                f"pattern.stride = {stride}: tokens between windows of {window} would see nothing; "
                f"give at most pattern.window = {window}."
            )
        self.keep = share(keep, "pattern.keep")

    def zones(self) -> Zones:
        return (Zone(first=self.window - 1, last=0, align=self.stride, keep=self.keep),)
