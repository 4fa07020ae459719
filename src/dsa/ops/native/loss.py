"""The indexer loss over a selection, on the fused CPU kernels."""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.contracts import Selection
from dsa.ops.native.arguments import (
    Heads,
    address,
    asked,
    call,
    heads,
    kernel_indices,
    loaded,
    scratch,
    single,
    structure,
    units,
    workspace,
)
from dsa.ops.native.cohort import indexer_losses
from dsa.ops.reference import checked_features
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import scale_of
from dsa.ops.zones import first_forced

LossArgs = structure(
    "LossArgs",
    "q k *packed_k scale *logsumexp *mass *p p_batch p_group p_time p_key *queries index_k *packed_index_k *weights "
    "*positions *counts batch heads kv_heads groups key_groups target_groups selection_groups time "
    "length slots *row_loss *valid *loss wanted *grad_queries *grad_keys *grad_weights *part_keys parts rows threads "
    "*scratch scratch_per_thread",
    scale=ctypes.c_double,
    **dict.fromkeys("q k index_k".split(), Heads),
)


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`, token by token. Where a gradient is wanted it is computed together with the loss."""
    if selection is None:
        return indexer_losses([features], target)[0]
    features = checked_features(features, target, selection)
    time, keys = features.queries.shape[2], features.keys.shape[2]
    positions, counts = kernel_indices(selection)
    if features.forced:
        fence = first_forced(features.forced, torch.arange(keys - time, keys))
        counts = ((positions >= 0) & (positions < fence[:, None])).sum(-1, dtype=torch.int32)
    relu = features.activation == "relu"
    return IndexerLoss.apply(features.queries, features.keys, features.weights, relu, target, positions, counts)


class IndexerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
        positions: Tensor, counts: Tensor,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad)
        loss, grads = run_loss(queries, keys, weights, relu, target, positions, counts, wanted)
        if wanted:
            ctx.save_for_backward(*grads)
            ctx.dtypes = [None if x is None else x.dtype for x in (queries, keys, weights)]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*(None if x is None else (x * grad).to(dtype) for x, dtype in grads), *(None,) * 4)


def run_loss(
    queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
    positions: Tensor, counts: Tensor, wanted: bool,
) -> tuple[Float[Tensor, ""], tuple[Tensor | None, ...]]:  # fmt: skip
    """The loss, and its gradients by queries, keys and weights if wanted."""
    queries, keys = single(queries).contiguous(), single(keys)
    weights = None if weights is None else single(weights).contiguous()
    batch, groups, time, index_heads, index_dim = queries.shape
    key_groups, length, slots = keys.shape[1], keys.shape[2], positions.shape[-1]
    threads = torch.get_num_threads()
    dim = target.queries.shape[-1] if isinstance(target, TrueAttention) else 16
    kernels = loaded("loss.cpp", (LossArgs, Heads), HEAD_DIM=dim, HEADS=index_heads, DIM=index_dim, RELU=int(relu))
    args = LossArgs()
    if not isinstance(target, TrueAttention):
        explicit = target.detach().float()
        args.p, args.heads, args.kv_heads, args.target_groups = address(explicit), 1, 1, explicit.shape[1]
        args.p_batch, args.p_group, args.p_time, args.p_key = explicit.stride()
    else:
        q, k, logsumexp = single(target.queries), single(target.keys), single(target.logsumexp).contiguous()
        args.q, args.k, args.logsumexp = heads(q), heads(k), address(logsumexp)
        if target.mass is None:
            packed = torch.empty(*k.shape[:3], asked(kernels, "loss_pitch"))
            args.packed_k = address(packed)
        else:
            args.mass = address(checked_mass(target.mass.sums, (target.groups, batch, time, -(-slots // 16) * 16)))
        args.heads, args.kv_heads, args.target_groups = q.shape[1], k.shape[1], target.groups
        args.scale = scale_of(q, target.scale)
    size = batch * key_groups * length * asked(kernels, "loss_index_pitch")
    args.queries, args.index_k, args.weights = address(queries), heads(keys), address(weights)
    args.packed_index_k = address(workspace.take("packed_index_k", size))
    args.positions, args.counts, args.selection_groups = address(positions), address(counts), positions.shape[1]
    args.batch, args.groups, args.key_groups, args.time = batch, groups, key_groups, time
    args.length, args.slots, args.threads = length, slots, threads
    args.row_loss = address(workspace.take("row_loss", batch * groups * time))
    args.valid = address(workspace.take("valid", batch * groups * time, torch.int32))
    args.parts = units(batch, threads, min(16, -(-time // 64)))
    args.rows = min(2048, max(16, (1 << 19) // slots), -(-time // args.parts))
    loss = torch.empty(())
    args.loss = address(loss)
    grads: tuple[Tensor | None, ...] = ()
    args.wanted = wanted
    if wanted:
        grads = (
            torch.empty_like(queries),
            torch.empty(keys.shape),
            None if weights is None else torch.empty_like(weights),
        )
        args.grad_queries, args.grad_keys, args.grad_weights = map(address, grads)
        args.part_keys = address(workspace.take("part_keys", args.parts * size))
    memory, args.scratch_per_thread = scratch(kernels, "loss_scratch", threads, args.rows, slots)
    args.scratch = address(memory)
    if not call(kernels.indexer_loss, ctypes.byref(args), result=ctypes.c_bool):
        raise IndexError(f"indexer_loss: the selection holds positions outside the {length} keys.")
    return loss, grads


def checked_mass(sums: Tensor, shape: tuple[int, ...]) -> Tensor:
    if sums.shape != shape or sums.dtype != torch.float32 or not sums.is_contiguous():
        given = f"{tuple(sums.shape)}, {sums.dtype}"
        raise ValueError(f"indexer_loss: target.mass.sums is {given}: give {shape}, torch.float32, contiguous.")
    return sums
