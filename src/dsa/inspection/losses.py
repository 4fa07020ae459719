"""Loss by position, the same weights attending to their selection and to every earlier key."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from dsa.backbones import Backbone, Pass
from dsa.backbones.memory import token_losses
from dsa.data import IGNORE, Batch, DataModule

BINS = 16  # stretches of positions, equally long


@torch.no_grad()
def losses_in(model: Backbone, batch: Batch, sparse: bool) -> Float[Tensor, "batch time"]:
    """Cross-entropy at each position of a batch [nats], in float32; nan where nothing is asked."""
    losses = token_losses(model.eval().run(batch.tokens, Pass(sparse=sparse)).logits, batch.targets)
    return losses.masked_fill(batch.targets == IGNORE, torch.nan)


def mean_loss(model: Backbone, batches: Sequence[Batch]) -> float:
    """Mean over all that is asked in these batches, attending to the selection [nats]."""
    return float(torch.cat([losses_in(model, batch, sparse=True) for batch in batches]).double().nanmean())


def loss_by_position(model: Backbone, data: DataModule) -> dict[str, Any]:
    """Mean losses over all evaluation rows, by stretch of positions and in all [nats].

    The interval is a 95 % t interval of the difference over rows: it is about this run and these rows, not about
    other seeds.
    """
    batches = list(data.eval_loader())
    sparse, dense = (torch.cat([losses_in(model, b, how) for b in batches]).double() for how in (True, False))
    difference = (sparse - dense).nanmean(1)
    difference = difference[~difference.isnan()]
    interval = stats.t.interval(0.95, len(difference) - 1, float(difference.mean()), stats.sem(difference.numpy()))
    edges = torch.linspace(0, data.seq_len, min(BINS, data.seq_len) + 1).long().tolist()
    stretches = []
    for start, stop in itertools.pairwise(edges):
        asked = int((~dense[:, start:stop].isnan()).sum())
        mean = {
            name: float(x[:, start:stop].nanmean()) if asked else None
            for name, x in (("dense", dense), ("sparse", sparse))
        }
        stretches.append({"start": start, "stop": stop, "asked": asked, **mean})
    return {
        "rows": len(difference),
        "dense": float(dense.nanmean()),
        "sparse": float(sparse.nanmean()),
        "difference": float(difference.mean()),
        "difference_interval": [float(bound) for bound in interval] if len(difference) > 1 else None,
        "positions": stretches,
    }
