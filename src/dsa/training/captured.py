"""What a pattern that chooses learns in the warm-up: to show the keys that hold most of the attention."""

import torch
from jaxtyping import Float
from torch import Tensor

from dsa import ops
from dsa.backbones import SiteInputs
from dsa.ops import Scorer
from dsa.patterns import Choosing


def missed(
    logits: Float[Tensor, "batch group time entry"], captured: Float[Tensor, "batch group time entry"]
) -> Float[Tensor, ""]:
    """Share of the dense attention that is expected to be missed, if entries are drawn from softmax(logits)."""
    return 1 - (logits.softmax(-1) * captured).sum(-1).mean()


@torch.no_grad()
def captured_by_entry(
    pattern: Choosing,
    scorer: Scorer,
    inputs: SiteInputs,
    dense: Float[Tensor, "batch head time"],
    backend: str,
) -> Float[Tensor, "batch group time entry"]:
    """For each entry of a pattern's library the share of the dense attention on the keys that the indexer would keep
    under it, at the entry's own budget; the mean over the heads of each group.

    Args:
        dense: log-sum-exp of the site's attention logits.
    """
    site, q, k, sink = inputs.site, inputs.queries, inputs.keys, inputs.sink
    batch, time = len(q), torch.arange(q.shape[2], device=q.device)
    found = []
    for one in pattern.library:
        limit = one.own_budget(time, scorer.forced).expand(batch, -1, -1)
        chosen = ops.select(scorer, one.zones(), limit, backend=backend)
        mass = ops.captured(q, k, chosen, dense, sink, scale=site.scale, cap=site.cap, backend=backend)
        found.append(mass.unflatten(1, (pattern.groups, -1)).mean(2))
    return torch.stack(found, -1)
