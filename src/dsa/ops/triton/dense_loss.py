"""Indexer losses over all earlier units, a block of queries at a time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.reference import by_unit
from dsa.ops.scorers import TrueAttention
from dsa.ops.scores import scale_of
from dsa.ops.triton import sizes
from dsa.ops.triton.launch import dense_last, launch
from dsa.ops.triton.learner import Learner
from dsa.ops.triton.select import blocks, index_scores
from dsa.ops.zones import first_forced


def over_all_keys(learners: list[Learner], target: TrueAttention | Tensor) -> None:
    """The losses of learners of the same queries, and their gradients where wanted."""
    batch, _, time, keys = target.shape if isinstance(target, Tensor) else (*target.queries.shape[:3], target.shape[2])
    before, groups = keys - time, max(learner.index.groups for learner in learners)
    stops = [scope_of(learner, time, keys) for learner in learners]
    for rows in blocks((batch, groups, time), max(before, 0)):
        seen = max(before + rows.stop, 0)
        by_size: dict[int, Tensor] = {}
        for learner, stop in zip(learners, stops, strict=True):
            unit = learner.features.unit
            if unit not in by_size:
                by_size[unit] = masses_of(target, rows, unit, seen // unit, before)
            learn(learner, by_size[unit], stop[:, :, rows], rows, before)


def scope_of(learner: Learner, time: int, keys: int) -> Int[Tensor, "1 1 time"]:
    """How many units each query has in scope: those that end at or before it and before what is forced."""
    position = torch.arange(keys - time, keys, device=learner.index.queries.device)
    fence = first_forced(learner.features.forced, position)
    return (fence // learner.features.unit).clamp(min=0).int()[None, None]


def masses_of(
    target: TrueAttention | Tensor, rows: slice, unit: int, width: int, before: int
) -> Float[Tensor, "batch group row unit"]:
    """What these queries attend to each of the first `width` units."""
    if isinstance(target, Tensor):
        return by_unit(target.detach()[:, :, rows, : width * unit].float(), unit).sum(-1)
    from dsa.ops.triton import dense_loss_kernels

    q, k, logsumexp = dense_last(target.queries[:, :, rows]), dense_last(target.keys), target.logsumexp[:, :, rows]
    batch, heads, count, dim = q.shape
    summed, tile = q.new_empty(batch, target.groups, count, width, dtype=torch.float32), sizes.tile(dim)
    launch(
        dense_loss_kernels.masses, batch * target.groups * -(-count // tile) * -(-width // tile),
        (q, k, logsumexp, summed), *q.stride()[:3], *k.stride()[:3], *logsumexp.stride(), target.groups,
        heads // target.groups, heads // k.shape[1], count, width, before + rows.start, unit, dim,
        scale_of(q, target.scale), target.cap or 0.0, CAP=target.cap is not None, TILE=tile,
        DIM=sizes.power(dim),
    )  # fmt: skip
    return summed


def learn(
    learner: Learner,
    masses: Float[Tensor, "batch some row unit"],
    stops: Int[Tensor, "1 1 row"],
    rows: slice,
    before: int,
) -> None:
    """What a block of queries adds to a learner's losses and gradients."""
    from dsa.ops.triton import dense_loss_kernels

    index = learner.index.rows(rows)
    (batch, groups, count, heads, dim), units, width = index.queries.shape, index.keys.shape[2], masses.shape[-1]
    stop = stops.expand(batch, groups, -1)
    zone = torch.stack([torch.zeros_like(stop), stop, stop, torch.ones_like(stop)])[None]
    scores = index_scores(index, zone, width)
    slopes = learner.diverge(masses, scores, stops, rows)
    if slopes is None:
        return
    by_query, by_key, by_weight = learner.grads
    assert by_query is not None and by_key is not None
    tile = sizes.tile(dim)
    cut = index.constants | {"TILE": tile}
    sizes_of = groups, index.key_share, count, width, before + rows.start, learner.features.unit
    launch(
        dense_loss_kernels.queries_gradient, batch * groups * -(-count // tile) * heads,
        (*index.tensors, slopes, by_query[:, :, rows], None if by_weight is None else by_weight[:, :, rows]),
        *index.strides, *sizes_of, learner.losses.shape[2], heads, dim, **cut,
    )  # fmt: skip
    launch(
        dense_loss_kernels.keys_gradient, batch * index.keys.shape[1] * -(-width // tile),
        (*index.tensors, slopes, by_key), *index.strides, *sizes_of, units, heads, dim, **cut,
    )  # fmt: skip
