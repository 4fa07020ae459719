"""Adaptive selectors and indexers that pick brought to their targets: passes over training batches in which nothing
learns."""

import itertools

import torch
from torch import Tensor

from dsa.backbones import Backbone, Pass, Router
from dsa.data import DataModule
from dsa.indexers import Picking

ROUNDS = 40
"""Passes at most; each closes a share of the distance to the target."""
CLOSE = 0.005
"""Relative distance of the mean budget to its target at which calibration ends."""


@torch.no_grad()
def calibrate(model: Backbone, data: DataModule, device: torch.device) -> None:
    """Move the constant of every selector that has one until its mean budget meets its target; others stay as they are.
    Before that every indexer that picks gets its price. The model is moved to the device.

    Every process of a distributed run does this on the same rows.
    """
    model.to(device)
    set_prices(model, data, device)
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


def set_prices(model: Backbone, data: DataModule, device: torch.device) -> None:
    """Give every indexer that picks among others the price at which it meets its target on training rows.

    The rows end where it is decided, so that no pick has a part in another.
    """
    own = {
        router.site: router.indexer
        for router in model.routers
        if isinstance(router, Router) and isinstance(router.indexer, Picking)
    }
    if not own:
        return
    found: dict[int, list[Tensor]] = {site: [] for site in own}
    how = Pass(picked=lambda site, picked: found[site].append(picked.regret), logits=False)
    training, prefix = model.training, max(indexer.prefix for indexer in own.values())
    model.eval()
    for step in range(ROUNDS):
        model.run(data.batch("calibration", step).tokens[:, :prefix].to(device), how)
    model.train(training)
    for site, indexer in own.items():
        indexer.set_price(torch.cat(found[site]))


def constants(model: Backbone) -> dict[str, float]:
    """The constants that calibration found, by name."""
    return {name: value.item() for name, value in model.named_buffers() if name.startswith("routers.")}


@torch.no_grad()
def restore(model: Backbone, found: dict[str, float]) -> None:
    """Give the routers the constants that calibration found for them."""
    buffers = dict(model.named_buffers())
    for name, value in found.items():
        buffers[name].fill_(value)
