"""Budgets that grow during training."""

import math
from abc import abstractmethod

from jaxtyping import Int
from torch import Tensor

from dsa.checks import at_least, positive
from dsa.selectors.base import Selector, SelectorContext


class Progressive(Selector):
    """A budget that goes from start_k to end_k with training progress; a variant gives the curve.

    Args:
        start_k: keys kept at the beginning of sparse training [tokens].
        end_k: keys kept at its end, and in every evaluation [tokens].
    """

    def __init__(self, start_k: int, end_k: int) -> None:
        super().__init__()
        self.start_k = positive(start_k, "selector.start_k")
        self.end_k = at_least(end_k, start_k, "selector.end_k", "the budget grows from selector.start_k")

    @abstractmethod
    def curve(self, progress: float) -> float:
        """Budget at a progress between 0 and 1."""

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.visible.clamp(max=round(self.curve(context.progress)))


class ProgressiveLinear(Progressive):
    """Grows by the same number each step."""

    def curve(self, progress: float) -> float:
        return self.start_k + (self.end_k - self.start_k) * progress


class ProgressiveExponential(Progressive):
    """Grows by the same factor each step."""

    def curve(self, progress: float) -> float:
        return self.start_k * (self.end_k / self.start_k) ** progress


class ProgressiveCosine(Progressive):
    """Grows along half a cosine, slow at both ends."""

    def curve(self, progress: float) -> float:
        return self.start_k + (self.end_k - self.start_k) * (1 - math.cos(math.pi * progress)) / 2
