"""How often the k-th index score is another key's or block's too, and what it costs that position decides then."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.backbones import Backbone, Router
from dsa.build import build_data
from dsa.data import DataModule
from dsa.inspection.losses import mean_loss
from dsa.inspection.measure import spread
from dsa.inspection.reranked import reranked
from dsa.judging.probe import observed
from dsa.judging.ties import Tied, tied, tied_share
from dsa.ops import OfAnother
from dsa.training.load import finished, load_run, load_spec


@dataclass(frozen=True)
class Later(OfAnother):
    """The order of another scorer's scores, but of equal ones the later unit is the better one.

    Scores are ranks: they say which key is better, not by how much.
    """

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        assert self.scorer.shape is not None
        units = self.scorer.shape[2]
        values, order = super().scores(rows, slice(0, units), offset, device).sort(dim=-1, stable=True)
        place = torch.arange(units, device=values.device, dtype=torch.float32).expand_as(values)
        return torch.empty_like(place).scatter(-1, order, place)[..., columns]  # a stable sort has the later one behind


def ties_of(folder: str | Path, allow_targets: tuple[str, ...] = ()) -> dict[str, Any]:
    """Ties of a finished run on held-out rows, and its loss under either rule; plain data.

    Args:
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run, or one without its weights.
        ValueError: it ranks no keys by an index score, or a rule that sees the scores trims what it keeps.
    """
    result = finished(folder)
    model = load_run(folder, allow_targets)
    return {"run_id": result.run_id} | measure_ties(
        model, build_data(load_spec(Path(folder), allow_targets)), result.run_id
    )


@torch.no_grad()
def measure_ties(model: Backbone, data: DataModule, name: str) -> dict[str, Any]:
    """Shares of tied queries by layer, and the loss with ties to the earlier and to the later key [nats].

    Raises:
        ValueError: as above.
    """
    batches = list(data.eval_loader())
    layers: dict[int, list[Tied]] = {}
    tokens = torch.cat([batch.tokens for batch in batches])
    for row in spread(len(tokens)):
        for seen in observed(model, tokens[row][None]):
            if (here := tied(seen)) is not None:
                layers.setdefault(seen.layer, []).append(here)
    if not any(one.contested for each in layers.values() for one in each):
        raise ValueError(
            f"{name}: no key, and no block of keys, is left out by an index score under a pattern that chooses nothing "
            "itself, so none can tie."
        )
    routers = [router for router in model.routers if isinstance(router, Router)]
    if any(router.selector.trims for router in routers):
        raise ValueError(f"{name}: its selector drops keys by how large their scores are, which an order does not say.")

    earlier = mean_loss(model, batches)
    with reranked(routers, Later):
        later = mean_loss(model, batches)
    return {
        "layers": {number: tied_share(each) for number, each in layers.items()},
        "tied": tied_share([one for each in layers.values() for one in each]),
        "loss_earlier": earlier,
        "loss_later": later,
        "difference": later - earlier,
    }
