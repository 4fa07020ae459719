"""What one fit is made of: its name and length, and the groups of parameters that learn."""

from typing import NamedTuple

from torch import nn


class Stage(NamedTuple):
    """One fit.

    Args:
        name: dense, warmup or sparse: the stage's name in metrics and messages.
        steps: optimiser steps.
        offset: optimiser steps of the stages before.
    """

    name: str
    steps: int
    offset: int


class Group(NamedTuple):
    """Parameters that learn together: one learning rate, one gradient norm that is clipped.

    Args:
        setting: of the learning rate, for messages.
    """

    name: str
    parameters: list[nn.Parameter]
    lr: float
    setting: str
