"""What every selector answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from dsa.ops import ScoredRows, Scorer, Selection, TrueAttention


class SelectorContext(NamedTuple):
    """What a selector may know of a forward pass: nothing about later tokens. To be read alone: the next pass may get
    the same tensors."""

    time: Int[Tensor, "batch time"]  # positions, counted from the row's first token
    visible: Int[Tensor, "batch group time"]  # keys that the pattern lets each query see
    own: Int[Tensor, "batch group time"]  # the pattern's own budget
    progress: float = 1.0  # of training, 0 to 1; 1 in every evaluation
    layer: int = 0
    step: int = 0  # of training, from 1; 0 in every evaluation


class Selector(nn.Module, ABC):
    """A budget per query, counted with the keys that the pattern forces.

    Attributes:
        uses_indexer: False for controls that rank keys by something else.
    """

    uses_indexer: bool = True

    @classmethod
    def budget(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of the selector that stands for its budget, whatever ranks the keys: they name what is judged with
        the nearest keys instead.

        Args:
            settings: its own, with `_target_`.
        """
        return dict(settings)

    @abstractmethod
    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        """The most keys each query may keep."""

    def at_most(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        """What no limit goes beyond, of a context of one row in the host's memory: a rule whose limits need numbers
        that lie on another device says it without them."""
        return self.limit(context)

    def trim(self, rows: ScoredRows) -> Int[Tensor, "batch group time"]:
        """How many of the kept keys stay, forced ones counted; only rules that see the scores override it."""
        raise TypeError(f"{type(self).__name__} does not trim")

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` moves a constant towards a target mean budget."""
        return False

    @property
    def trims(self) -> bool:
        """Whether the rule sees the scores."""
        return type(self).trim is not Selector.trim

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        """What ranks the keys: the index features, unless this is a control."""
        if features is None:
            raise TypeError(f"{type(self).__name__} ranks keys by an indexer's scores; the model was built without one")
        return features

    def observe(self, selection: Selection, context: SelectorContext) -> None:
        """Called with each training selection; only calibrating selectors use it."""

    def calibrate(self, total: Callable[[Tensor], Tensor]) -> Tensor:
        """Called after each optimiser step, and while nothing learns, to find the constant before judging.

        Args:
            total: sums a tensor over the processes of a distributed run.

        Returns: how far the mean budget was from its target, relatively; on the device, which nobody need wait for.
        """
        return torch.zeros(())
