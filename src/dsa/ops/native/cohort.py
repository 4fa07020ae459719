"""The losses of several indexers over all causal keys, on the fused CPU kernels: the target is computed once."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.native.arguments import Heads, address, asked, call, heads, loaded, single, structure, units, workspace
from dsa.ops.reference import checked_features
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import scale_of

IndexerArgs = structure(
    "IndexerArgs",
    "*queries *weights keys groups key_groups heads dim relu wanted *turned *part_keys *row_loss *grad_queries "
    "*grad_keys *grad_weights *loss",
    keys=Heads,
)
CohortArgs = structure(
    "CohortArgs",
    "*indexers count q k *logsumexp *turned *p p_batch p_group p_time p_key batch heads key_heads dim groups time "
    "length scale *valid parts threads *scratch scratch_per_thread",
    q=Heads, k=Heads, scale=ctypes.c_float,
)  # fmt: skip


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """As `reference.indexer_losses`. Where gradients are wanted they are computed together with the losses."""
    features = [checked_features(each, target, None) for each in features]
    return list(CohortLosses.apply(features, target, *(x for each in features for x in each[:3])))


class CohortLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Sequence[IndexFeatures], target: TrueAttention | Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        wanted = [any(ctx.needs_input_grad[i : i + 3]) for i in range(2, 2 + len(tensors), 3)]
        losses, grads = run_losses(features, target, wanted)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*grads)
        ctx.dtypes = [None if x is None else x.dtype for x in tensors]
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        factors = [None if x is None else float(x) for x in upstream for _ in range(3)]
        grads = zip(ctx.saved_tensors, factors, ctx.dtypes, strict=True)
        return (None, None, *(None if x is None or f is None else scaled(x, f).to(dtype) for x, f, dtype in grads))


def scaled(x: Tensor, factor: float) -> Tensor:
    """x * factor. One is the most common, and copies of all gradients of a cohort take as long as a few indexers."""
    return x if factor == 1 else x * factor


def run_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Tensor, wanted: list[bool]
) -> tuple[tuple[Tensor, ...], list[Tensor | None]]:
    """The losses, and their gradients where wanted."""
    kernels = loaded("cohort.cpp", (CohortArgs, IndexerArgs, Heads))
    batch, _, time = features[0].queries.shape[:3]
    length, threads = features[0].keys.shape[2], torch.get_num_threads()
    pitch = asked(kernels, "cohort_pitch", length)
    args = CohortArgs(batch=batch, time=time, length=length, threads=threads, heads=1, key_heads=1, dim=1)
    alive = describe_target(args, target, pitch)
    args.parts = units(batch, threads, min(16, -(-time // 64)))
    losses = torch.empty(len(features))
    key_sizes = [batch * x.keys.shape[1] * x.keys.shape[3] * pitch for x in features]
    room = zip(
        rooms("cohort_keys", key_sizes),
        rooms("cohort_part_keys", [args.parts * size for size in key_sizes]),
        rooms("row_loss", [batch * x.queries.shape[1] * time for x in features]),
        losses.split(1),
        strict=True,
    )
    grads: list[Tensor | None] = []
    table = (IndexerArgs * len(features))()
    for n, (own, (turned, part_keys, row_loss, loss)) in enumerate(zip(features, room, strict=True)):
        queries, keys = single(own.queries).contiguous(), single(own.keys)
        weights = None if own.weights is None else single(own.weights).contiguous()
        found: list[Tensor | None] = [None] * 3
        if wanted[n]:
            found = [None if x is None else torch.empty(x.shape) for x in (queries, keys, weights)]
        table[n] = IndexerArgs(
            address(queries), address(weights), heads(keys), queries.shape[1], keys.shape[1], *queries.shape[3:],
            own.activation == "relu", wanted[n], address(turned), address(part_keys), address(row_loss),
            *map(address, found), address(loss),
        )  # fmt: skip
        grads += found
        alive += [queries, keys, weights]
    args.indexers, args.count = ctypes.addressof(table), len(features)
    size = call(kernels.cohort_scratch, ctypes.byref(args))
    args.scratch, args.scratch_per_thread = address(workspace.take("scratch", threads * size)), size
    call(kernels.cohort_losses, ctypes.byref(args), result=None)
    return tuple(loss.clone() for loss in losses), grads


def rooms(name: str, sizes: list[int]) -> tuple[Tensor, ...]:
    """Room of these sizes, side by side."""
    return workspace.take(name, sum(sizes))[: sum(sizes)].split(sizes)


def describe_target(args: Any, target: TrueAttention | Tensor, pitch: int) -> list[Tensor | None]:
    """Fills in what the kernels are told of the target; returns the tensors that must outlive the call."""
    if isinstance(target, Tensor):
        explicit = target.detach().float()
        args.p, args.groups = address(explicit), explicit.shape[1]
        args.p_batch, args.p_group, args.p_time, args.p_key = explicit.stride()
        alive: list[Tensor | None] = [explicit]
    else:
        q, k, logsumexp = single(target.queries), single(target.keys), single(target.logsumexp).contiguous()
        args.q, args.k, args.logsumexp = heads(q), heads(k), address(logsumexp)
        args.heads, args.key_heads, args.dim, args.groups = q.shape[1], k.shape[1], q.shape[3], target.groups
        args.scale = scale_of(q, target.scale)
        args.turned = address(workspace.take("cohort_target", args.batch * k.shape[1] * q.shape[3] * pitch))
        alive = [q, k, logsumexp]
    args.valid = address(workspace.take("valid", args.batch * args.groups * args.time, torch.int32))
    return alive
