"""The ops in plain PyTorch, by blocks of queries: any device, memory O(block x keys).

What a query is answered depends on its own keys alone, down to the last bit: rows are summed up in tiles on a grid that
knows nothing of what was selected.
"""

import torch

from dsa.ops.blocked.attend import attend, attend_with_target, dense_logsumexp
from dsa.ops.blocked.loss import indexer_loss, indexer_losses
from dsa.ops.blocked.select import select
from dsa.ops.contracts import Call
from dsa.ops.features import lightning_features

__all__ = [
    "attend",
    "attend_with_target",
    "covers",
    "dense_logsumexp",
    "indexer_loss",
    "indexer_losses",
    "lightning_features",
    "multiplies",
    "name",
    "select",
    "selected_only",
]

name, selected_only = "blocked", False


def multiplies(dtype: torch.dtype) -> bool:
    """All in float32, which is exact for integers."""
    return False


def covers(call: Call) -> str | None:
    """Everything."""
    return None
