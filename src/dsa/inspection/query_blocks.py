"""One row of held-out data, a block of queries at a time: the dense attention, what was kept, what would be best."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsa import ops
from dsa.backbones import Observation
from dsa.ops import Selection, TrueAttention
from dsa.ops.reference import best, to_mask

BLOCK = 256  # queries held at once: memory grows with BLOCK x length, not with the square of the length


class QueryBlock(NamedTuple):
    """Some queries of one layer in one row, against every key.

    Args:
        first: position of the first query.
        attention: dense probabilities, averaged over the heads of each group; 0 at later keys.
        kept: the selection.
        best: the keys of highest attention, as many per query as the selection kept.
        contested: queries that could not keep every earlier key; only there is something chosen.
    """

    first: int
    attention: Float[Tensor, "group query key"]
    kept: Bool[Tensor, "group query key"]
    best: Bool[Tensor, "group query key"]
    contested: Bool[Tensor, "group query"]


def query_blocks(seen: Observation) -> Iterator[QueryBlock]:
    """A layer's queries, block by block.

    Raises:
        ValueError: the layer attended to every earlier key, or to entries of several tokens.
    """
    if seen.entries is not None:
        raise ValueError(
            "model.kv = csa: this layer attends to compressed entries; what is measured here is of tokens."
        )
    if seen.selection is None:
        raise ValueError("every query keeps every earlier key: nothing was selected.")
    q, k = seen.queries, seen.keys
    length, groups = q.shape[2], seen.selection.positions.shape[1]
    logsumexp = ops.dense_logsumexp(q, k, seen.sink, scale=seen.scale, cap=seen.cap)
    dense = TrueAttention(q, k, logsumexp, groups, scale=seen.scale, cap=seen.cap)
    for first in range(0, length, BLOCK):
        rows = slice(first, min(first + BLOCK, length))
        yield query_block(dense, seen.selection, rows)


def query_block(dense: TrueAttention, selection: Selection, rows: slice) -> QueryBlock:
    """The queries in `rows` of the first row of a batch."""
    length = dense.keys.shape[2]
    position = torch.arange(rows.start, rows.stop, device=dense.keys.device)
    earlier = torch.arange(length, device=position.device) <= position[:, None]
    summed = dense.scores(rows, slice(0, length))[0].masked_fill(~earlier, 0.0)
    counts = selection.counts[0, :, rows].long()
    return QueryBlock(
        first=rows.start,
        attention=summed / (dense.queries.shape[1] // dense.groups),
        kept=to_mask(Selection(selection.positions[:1, :, rows], selection.counts[:1, :, rows]), length)[0],
        best=best(summed, earlier.expand_as(summed), counts),
        contested=counts < position + 1,
    )
