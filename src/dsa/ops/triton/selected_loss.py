"""Indexer losses over a selection; memory is that of the selection."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.contracts import Selection
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import scale_of
from dsa.ops.triton import sizes
from dsa.ops.triton.attend import inside, listed
from dsa.ops.triton.launch import dense_last, launch
from dsa.ops.triton.learner import Learner
from dsa.ops.zones import first_forced

Places = tuple[Int[Tensor, "batch chosen time place"], Int[Tensor, "batch chosen time"]]


def over_selection(learner: Learner, target: TrueAttention | Tensor, selection: Selection) -> None:
    """The loss of a learner and its gradients, if wanted."""
    from dsa.ops.triton import selected_loss_kernels

    index, features = learner.index, learner.features
    keys = target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2]
    places, stops = scope = places_of(features, inside(selection.positions, keys), keys)
    masses = masses_of(target, scope, features.unit)
    (batch, groups, time, heads, dim), (_, chosen, _, slots) = index.queries.shape, places.shape
    scores = masses.new_empty(batch, groups, time, slots)
    programs = batch * groups * -(-time // sizes.ROWS)
    cut = index.constants | {
        "ROWS": sizes.ROWS, "SLOTS": sizes.slots(dim), "HEADS": min(sizes.HEADS, sizes.power_of_two(heads)),
    }  # fmt: skip
    shares = groups, index.key_share, groups // chosen
    sizes_of = *index.strides, *shares, time, slots, heads, dim
    launch(selected_loss_kernels.scores, programs, (*index.tensors, *scope, scores), *sizes_of, **cut)
    slopes = learner.diverge(masses, scores, stops, slice(0, time))
    if slopes is None:
        return
    by_query, by_key, by_weight = learner.grads
    assert by_query is not None and by_key is not None
    tensors = *index.tensors, *scope, slopes, by_query, by_weight
    launch(selected_loss_kernels.queries_gradient, programs, tensors, *sizes_of, **cut)
    units = index.keys.shape[2]
    launch(
        selected_loss_kernels.keys_gradient, batch * index.keys.shape[1] * -(-units // sizes.KEYS),
        (*index.tensors, *listed(places, units), slopes, by_key), *index.strides, *shares, time, units, slots, heads,
        dim, **index.constants, KEYS=sizes.KEYS, LIST=sizes.LIST,
    )  # fmt: skip


def places_of(features: IndexFeatures, positions: Int[Tensor, "batch chosen time slot"], keys: int) -> Places:
    """The units in scope of each query, in its first slots, and how many they are: all of whose tokens it keeps, and
    none of which is forced."""
    (*_, time, slots), unit = positions.shape, features.unit
    if features.forced:
        fence = first_forced(features.forced, torch.arange(keys - time, keys, device=positions.device))
        positions = positions.where(positions < fence[:, None], -1)
    if unit > 1:  # of ascending tokens, whole units are those whose last token lies where it should behind the first
        last = torch.nn.functional.pad(positions[..., unit - 1 :], (0, unit - 1), value=-1)[..., :slots]
        whole = (positions >= 0) & (positions % unit == 0) & (last == positions + unit - 1)
        units = (positions // unit).where(whole, -1)
        positions = units.sort(-1, descending=True).values[..., : max(slots // unit, 1)]
    return positions.int().contiguous(), (positions >= 0).sum(-1, dtype=torch.int32)


def masses_of(target: TrueAttention | Tensor, scope: Places, unit: int) -> Float[Tensor, "batch some time slot"]:
    """What each query attends to its places, by group of the target or of the places, whichever are more."""
    places, stops = scope
    batch, chosen, time, slots = places.shape
    if isinstance(target, Tensor):
        groups = max(target.shape[1], chosen)
        token = places.long()[..., None] * unit + torch.arange(unit, device=places.device)
        token = token.clamp(min=0).flatten(3).expand(-1, groups, -1, -1)
        return target.detach().float().expand(-1, groups, -1, -1).gather(-1, token).unflatten(-1, (slots, unit)).sum(-1)
    from dsa.ops.triton import selected_loss_kernels

    q, k, groups = dense_last(target.queries), dense_last(target.keys), max(target.groups, chosen)
    heads, dim = q.shape[1], q.shape[3]
    group_heads, kv_share = heads // target.groups, heads // k.shape[1]
    cell = math.gcd(group_heads, kv_share)
    summed = q.new_empty(batch, groups, time, slots, dtype=torch.float32)
    launch(
        selected_loss_kernels.masses, batch * groups * -(-time // sizes.ROWS),
        (q, k, target.logsumexp.detach().float().contiguous(), places, stops, summed), *q.stride()[:3], *k.stride()[:3],
        groups, groups // target.groups, groups // chosen, heads, group_heads, cell, kv_share, time, slots, unit, dim,
        scale_of(q, target.scale), target.cap or 0.0, CAP=target.cap is not None, ROWS=sizes.ROWS,
        HEADS=min(sizes.HEADS, sizes.power_of_two(cell)), SLOTS=sizes.slots(dim), DIM=sizes.power(dim),
    )  # fmt: skip
    return summed
