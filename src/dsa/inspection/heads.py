"""What each head of a run's indexers does: the sign of its weight, the keys that it clips, and what goes without it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dsa.backbones import Backbone, Router
from dsa.build import build_data
from dsa.data import IGNORE, Batch, DataModule
from dsa.inspection.head_sums import Layer
from dsa.inspection.losses import mean_loss
from dsa.inspection.measure import spread
from dsa.inspection.reranked import reranked
from dsa.inspection.reweighted import Reweigh, changed, clamped, head, weighted_routers
from dsa.judging.probe import observed
from dsa.training.load import finished, load_run, load_spec

LOSSES = ("model", "layers", "heads")
QUANTILES = {"weight_p05": 0.05, "weight_median": 0.5, "weight_p95": 0.95}


class Ablation(NamedTuple):
    """What is done to weights.

    Args:
        change: in a word.
        layer: the one where it is done; None: in all.
        head: to which it is done; None: to all.
    """

    change: str
    layer: int | None
    head: int | None
    to: Reweigh


def heads_of(folder: str | Path, losses: str = "model", allow_targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the heads of a finished run do, on held-out rows; plain data.

    Args:
        losses: where weights are changed: model: in all layers at once; layers: layer by layer too; heads: each head of
            each layer by itself too.
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run, or one without its weights.
        ValueError: its indexers have no heads with weights.
    """
    result = finished(folder)
    model = load_run(folder, allow_targets)
    data = build_data(load_spec(Path(folder), allow_targets))
    return {"run_id": result.run_id} | measure_heads(model, data, result.run_id, losses)


@torch.no_grad()
def measure_heads(model: Backbone, data: DataModule, name: str, losses: str = "model") -> dict[str, Any]:
    """Shares and masses by layer, by head and by place, over contested queries, and losses of changed weights [nats].

    Selections with changed weights are of the layer alone: its hidden states are those of the run. Losses are of the
    model that attends to them.

    Raises:
        ValueError: as above.
    """
    batches = list(data.eval_loader())
    tokens, targets = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("tokens", "targets"))
    asks = bool((targets == IGNORE).any())  # where all are asked, there is nothing to tell apart
    layers: dict[int, Layer] = {}
    routers: list[Router] = []
    for row in spread(len(tokens)):
        seen = observed(model, tokens[row][None])
        routers = weighted_routers(model, seen, name)
        for layer in seen:
            layers.setdefault(layer.layer, Layer()).add(layer, (targets[row] != IGNORE) & asks)
    return {
        "losses": list(ablated(model, routers, batches, losses, len(layers[0].heads))),
        "layers": [{"layer": number} | layer.own.shares() for number, layer in layers.items()],
        "heads": [
            {"layer": number, "head": which} | quantiles(layer.weights[which]) | sums.shares()
            for number, layer in layers.items()
            for which, sums in layer.heads.items()
        ],
        "places": [
            {"layer": number, "place": place} | sums.shares()
            for number, layer in layers.items()
            for place, sums in layer.places.items()
        ],
    }


def quantiles(weights: Sequence[Tensor]) -> dict[str, float]:
    """Of a head's weights, over all queries."""
    each = torch.cat(list(weights)).double()
    return {name: float(each.quantile(share)) for name, share in QUANTILES.items()}


def ablated(
    model: Backbone, routers: Sequence[Router], batches: Sequence[Batch], losses: str, heads: int
) -> Iterator[dict[str, Any]]:
    """The loss on all held-out rows as it is and with changed weights [nats]."""
    own = mean_loss(model, batches)
    yield {"change": "none", "layer": None, "head": None, "loss": own, "difference": 0.0}
    for each in ablations([router.site for router in routers], heads, LOSSES.index(losses)):
        here = [router for router in routers if each.layer in (None, router.site)]
        with reranked(here, changed(each.to)):
            loss = mean_loss(model, batches)
        yield {
            "change": each.change, "layer": each.layer, "head": each.head, "loss": loss, "difference": loss - own
        }  # fmt: skip


def ablations(layers: Sequence[int], heads: int, depth: int) -> Iterator[Ablation]:
    """In all layers at once; from a depth of 1 in each layer, from 2 of each head there."""
    for layer in (None, *(layers if depth >= 1 else ())):
        yield Ablation("negative weights at 0", layer, None, clamped)
        yield Ablation("absolute weights", layer, None, torch.abs)
        if layer is None or depth >= 2:
            for number in range(heads):
                yield Ablation("without the head", layer, number, head(number, torch.zeros_like))
                yield Ablation("negative weights at 0", layer, number, head(number, clamped))
