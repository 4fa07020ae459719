"""Training until a task is solved, not for a number of steps: or length is confounded with convergence."""

import math
from dataclasses import dataclass

import torch

from dsa.backbones import Backbone, Pass
from dsa.data import IGNORE, DataModule

EVERY = 25  # optimiser steps between two looks
BATCHES = 4  # held-out batches of each look
TAIL = 0.25  # steps in which the rate falls at the end, as a share of those before


@dataclass
class Criterion:
    """When dense training ends: its accuracy is reached, or its steps are used up.

    The rate rises and stays; from the step at which the accuracy is reached, or the last that leaves room, it falls
    along a cosine for a quarter of the steps so far.

    Args:
        accuracy: to be reached on held-out rows, share of the tokens asked for.
        limit: most optimiser steps.
        falling: step from which the rate falls; None before.
        reached: step at which the accuracy was reached; None before.
    """

    accuracy: float
    limit: int
    falling: int | None = None
    reached: int | None = None

    @property
    def last_fall(self) -> int:
        """The last step at which the rate can begin to fall."""
        return math.ceil(self.limit / (1 + TAIL))

    @property
    def end(self) -> int:
        """The step after which training is over, as far as is known."""
        return self.limit if self.falling is None else min(self.limit, math.ceil(self.falling * (1 + TAIL)))

    def look(self, step: int, model: Backbone, data: DataModule) -> None:
        """After a step: measure, every so often, whether the task is solved."""
        if self.falling is not None:
            return
        if step % EVERY == 0 and accuracy_of(model, data) >= self.accuracy:
            self.reached = step
        if self.reached is not None or step >= self.last_fall:
            self.falling = step

    def lr_share(self, step: int, rise: float, final: float) -> float:
        """Share of the learning rate at a step.

        Args:
            rise: share of the limit's steps in which it rises.
            final: share that is left at the end.
        """
        up = min(1.0, (step + 1) / max(1.0, rise * self.limit))
        if self.falling is None:
            return up
        done = min(1.0, (step - self.falling) / max(1, self.end - self.falling))
        return up * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)


@torch.no_grad()
def accuracy_of(model: Backbone, data: DataModule) -> float:
    """Share of right answers on rows that are neither trained on nor judged, the same for every process."""
    training = model.training
    model.eval()
    right = asked = 0
    for number in range(BATCHES):
        batch = data.batch("criterion", number)
        targets = batch.targets.to(next(iter(model.parameters())).device)
        answers = model.run(batch.tokens.to(targets.device), Pass(sparse=False)).logits.argmax(-1)
        here = targets != IGNORE
        right += int((answers[here] == targets[here]).sum())
        asked += int(here.sum())
    model.train(training)
    return right / asked
