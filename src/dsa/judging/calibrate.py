"""Adaptive selectors brought to their target: passes over training batches in which nothing learns."""

import itertools

import torch

from dsa.backbones import Backbone, Pass, Router
from dsa.data import DataModule

ROUNDS = 40
"""Passes at most; each closes a share of the distance to the target."""
CLOSE = 0.005
"""Relative distance of the mean budget to its target at which calibration ends."""


@torch.no_grad()
def calibrate(model: Backbone, data: DataModule, device: torch.device) -> None:
    """Move the constant of every selector that has one until its mean budget meets its target; others stay as they are.

    Every process of a distributed run does this on the same rows.
    """
    routers = [router for router in model.routers if isinstance(router, Router) and router.selector.calibrates]
    if not routers:
        return
    training = model.training
    model.train()
    for step in itertools.count():
        tokens = data.batch("calibration", step).tokens.to(device)
        model.run(tokens, Pass())
        off = max([router.selector.calibrate(lambda x: x) for router in routers])
        if off < CLOSE or step + 1 == ROUNDS:
            break
    model.train(training)


def constants(model: Backbone) -> dict[str, float]:
    """The constants that calibration found, by name."""
    return {name: value.item() for name, value in model.named_buffers() if name.startswith("routers.")}


@torch.no_grad()
def restore(model: Backbone, found: dict[str, float]) -> None:
    """Give the routers the constants that calibration found for them."""
    buffers = dict(model.named_buffers())
    for name, value in found.items():
        buffers[name].fill_(value)
