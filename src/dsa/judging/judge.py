"""What is measured of a composition on a model as it is: quality, and what each layer selected."""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dsa.backbones import Backbone
from dsa.data import IGNORE, DataModule
from dsa.devices import Devices
from dsa.judging.calibrate import calibrate, constants
from dsa.judging.certificate import certify, most_kept
from dsa.judging.evaluation import evaluated, make_trainer
from dsa.judging.probe import averaged, measure, observed

PROBE_ROWS = 8  # held-out rows on which a selection is measured, at most


def judge(devices: Devices, dtype: str, data: DataModule, model: Backbone, look: bool = True) -> dict[str, Any]:
    """Validation metrics of a model as it is routed, dense if it is not.

    Args:
        look: also measure what each layer selects.
    """
    trainer = make_trainer(devices, dtype)
    device = trainer.strategy.root_device
    calibrate(model, data, device)
    routed = bool(model.router_of)
    found = evaluated(trainer, data, model, sparse=routed)
    out: dict[str, Any] = {"val": found.values} | ({"samples": found.samples} if found.samples else {})
    if routed and look:
        tokens, asked = probe_rows(data)
        seen = observed(model.to(device), tokens.to(device))
        layers = [measure(layer, None if asked is None else asked.to(device)) for layer in seen]
        most = most_kept(seen)
        del seen  # queries and keys of every layer
        told = [{"layer": site.number} | layer._asdict() for site, layer in zip(model.sites, layers, strict=True)]
        out["selection"] = {"mean": averaged(layers), "layers": told}
        out["constants"] = constants(model)
        if model.given:
            out["certificate"] = certify(model, tokens.to(device), most)
    return out


def probed(rows: int) -> int:
    """On how many of the evaluation rows a selection is measured."""
    return min(PROBE_ROWS, max(1, rows // 4))


def probe_rows(data: DataModule) -> tuple[Int[Tensor, "row time"], Bool[Tensor, "row time"] | None]:
    """A few evaluation rows, spread evenly over the held-out part, and which queries are asked; None where all are."""
    batches = list(data.eval_loader())
    tokens, asked = (torch.cat(rows) for rows in zip(*((b.tokens, b.targets != IGNORE) for b in batches), strict=True))
    rows = torch.linspace(0, len(tokens) - 1, probed(len(tokens))).long()
    return tokens[rows], None if asked.all() else asked[rows]
