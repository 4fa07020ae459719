"""The indexer loss on the fused CPU kernels, over a selection or over all keys."""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.compiler import library
from dsa.ops.contracts import IndexFeatures, Selection, TrueAttention
from dsa.ops.native.arguments import (
    Heads,
    address,
    call,
    heads,
    i64,
    kernel_indices,
    pointer,
    scratch,
    single,
    structure,
    units,
)
from dsa.ops.reference import check_loss

LossArgs = structure(
    "LossArgs",
    "q *keys *logsumexp *mass *p p_batch p_group p_time p_key *queries *index_keys *weights *positions *counts "
    "position_stride batch heads groups key_groups target_groups selection_groups time length slots *loss *valid "
    "*grad_queries *grad_weights *grad_keys parts rows threads *scratch scratch_per_thread",
    q=Heads,
)


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`. Where a gradient is wanted it is computed together with the loss."""
    check_loss(features, target, selection)
    batch, _, time = features.queries.shape[:3]
    keys = features.keys.shape[2]
    if selection is None:  # one list of all keys; each query reads as much of it as it sees
        positions = torch.arange(keys, dtype=torch.int32).expand(batch, 1, time, keys)
        counts = (torch.arange(1, time + 1, dtype=torch.int32) + keys - time).clamp(min=0)
        counts = counts.expand(batch, 1, time).contiguous()
    else:
        positions, counts = kernel_indices(selection)
    relu = features.activation == "relu"
    return IndexerLoss.apply(features.queries, features.keys, features.weights, relu, target, positions, counts)


class IndexerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
        positions: Tensor, counts: Tensor,
    ) -> Tensor:  # fmt: skip
        wanted = any(ctx.needs_input_grad)
        total, rows, grads = run_loss(queries, keys, weights, relu, target, positions, counts, wanted)
        if wanted:
            ctx.save_for_backward(rows, *grads)
            ctx.dtypes = [None if x is None else x.dtype for x in (queries, keys, weights)]
        return total / rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        rows, *grads = ctx.saved_tensors
        share = grad / rows
        grads = [None if x is None else (x * share).to(t) for x, t in zip(grads, ctx.dtypes, strict=True)]
        return (*grads, *(None,) * 4)


def run_loss(
    queries: Tensor, keys: Tensor, weights: Tensor | None, relu: bool, target: TrueAttention | Tensor,
    positions: Tensor, counts: Tensor, wanted: bool,
) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:  # fmt: skip
    """The sum over rows, how many rows count, and the sum's gradients by queries, keys and weights if wanted."""
    queries, keys = single(queries).contiguous(), single(keys)
    weights = None if weights is None else single(weights).contiguous()
    batch, groups, time, index_heads, index_dim = queries.shape
    key_groups, length, slots = keys.shape[1], keys.shape[2], positions.shape[-1]
    threads = torch.get_num_threads()
    dim = target.queries.shape[-1] if isinstance(target, TrueAttention) else 16
    kernels = library("loss.cpp", HEAD_DIM=dim, HEADS=index_heads, DIM=index_dim, RELU=int(relu))
    args = LossArgs()
    if not isinstance(target, TrueAttention):
        explicit = target.detach().float()
        args.p, args.heads, args.target_groups = address(explicit), 1, explicit.shape[1]
        args.p_batch, args.p_group, args.p_time, args.p_key = explicit.stride()
    else:
        q, k, logsumexp = single(target.queries), single(target.keys), single(target.logsumexp).contiguous()
        args.logsumexp = address(logsumexp)
        if target.mass is not None:
            sums = target.mass.sums
            shape = (target.groups, batch, time, -(-slots // 16) * 16)
            if sums.shape != shape or sums.dtype != torch.float32 or not sums.is_contiguous():
                given = f"{tuple(sums.shape)}, {sums.dtype}"
                raise ValueError(f"indexer_loss: target.mass.sums is {given}: give {shape}, torch.float32, contiguous.")
            args.mass = address(sums)
        else:
            packed = pack_rows(kernels, k, 0)
            args.q, args.keys = heads(q), address(packed)
        args.heads, args.target_groups = q.shape[1], target.groups
    packed_index = pack_rows(kernels, keys, 1)
    args.queries, args.index_keys, args.weights = address(queries), address(packed_index), address(weights)
    args.positions, args.counts, args.selection_groups = address(positions), address(counts), positions.shape[1]
    args.position_stride = positions.stride(2)
    args.batch, args.groups, args.key_groups, args.time = batch, groups, key_groups, time
    args.length, args.slots, args.threads = length, slots, threads
    loss, valid = torch.empty(batch, groups, time), torch.empty(batch, groups, time, dtype=torch.int32)
    args.loss, args.valid = address(loss), address(valid)
    args.parts = units(batch, threads, min(16, -(-time // 64)))
    args.rows = min(2048, max(16, (1 << 19) // slots), -(-time // args.parts))
    grads: tuple[Tensor | None, ...] = ()
    if wanted:
        grad_queries = torch.empty_like(queries)
        grad_weights = None if weights is None else torch.empty_like(weights)
        grad_keys = torch.zeros(args.parts, *packed_index.shape)
        args.grad_queries, args.grad_weights = address(grad_queries), address(grad_weights)
        args.grad_keys = address(grad_keys)
    memory, args.scratch_per_thread = scratch(kernels.loss_scratch, threads, args.rows, slots)
    args.scratch = address(memory)
    if not call(kernels.indexer_loss, ctypes.byref(args), result=ctypes.c_bool):
        raise IndexError(f"indexer_loss: the selection holds positions outside the {length} keys.")
    if wanted:
        total = grad_keys[0] if args.parts == 1 else grad_keys.sum(0)
        grads = (grad_queries, total[..., :index_dim], grad_weights)
    return loss.sum(), valid.sum().clamp(min=1), grads


def pack_rows(kernels: ctypes.CDLL, x: Tensor, index: int) -> Tensor:
    """Rows of [batch, head, time, dim] side by side, padded to whole vectors."""
    pitch = call(kernels.loss_index_pitch if index else kernels.loss_pitch)
    to = torch.empty(*x.shape[:3], pitch)
    kernels.pack_rows(
        ctypes.byref(heads(x)), i64(x.shape[0]), i64(x.shape[1]), i64(x.shape[2]), i64(index), pointer(address(to)),
        i64(torch.get_num_threads()),
    )  # fmt: skip
    return to
