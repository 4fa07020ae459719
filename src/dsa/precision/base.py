"""What every number format answers."""

from abc import ABC, abstractmethod

from torch import Tensor

from dsa.ops import IndexFeatures


class Precision(ABC):
    """Rounds index features to a number format, with straight-through gradients.

    Attributes:
        simulated: only the rounding is imitated, the arithmetic runs in float32: quality numbers, never speed.
    """

    simulated: bool = True

    @abstractmethod
    def cast(self, features: IndexFeatures) -> IndexFeatures:
        """The features as this format holds them; each row (query head or key) is rounded on its own."""


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """The rounded values, with the gradient of the exact ones."""
    return exact + (rounded - exact).detach()
