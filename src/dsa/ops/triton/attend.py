"""Attending on the Triton kernels, forward and backward."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops import faults
from dsa.ops.contracts import Selection
from dsa.ops.scores import report_outside, scale_of
from dsa.ops.triton import sizes
from dsa.ops.triton.launch import dense_last, launch
from dsa.ops.with_target import with_target


def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """As `reference.attend`, in float32."""
    chosen = inside(selection.positions, k.shape[2]), selection.counts.int().contiguous()
    out, logsumexp = Attend.apply(q, k, v, sink, *chosen, scale_of(q, scale), cap)
    return out, logsumexp


attend_with_target = with_target(attend)


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`, in float32."""
    from dsa.ops.triton import attend_kernels

    (batch, heads, time, dim), keys = q.shape, k.shape[2]
    q, k = dense_last(q), dense_last(k)
    logsumexp, tile = q.new_empty(batch, heads, time, dtype=torch.float32), sizes.tile(dim)
    launch(
        attend_kernels.dense_logsumexp, batch * heads * -(-time // tile), (q, k, flat(sink), logsumexp),
        *q.stride()[:3], *k.stride()[:3], time, keys, heads, heads // k.shape[1], dim, scale_of(q, scale), cap or 0.0,
        SINK=sink is not None, CAP=cap is not None, TILE=tile, DIM=sizes.power(dim),
    )  # fmt: skip
    return logsumexp


def flat(sink: Float[Tensor, "head"] | None) -> Float[Tensor, "head"] | None:
    """As the kernels read it: without gaps."""
    return None if sink is None else sink.detach().contiguous()


class Shape(NamedTuple):
    """What the kernels are told of the tensors of a call.

    Args:
        cell: neighbouring heads that share both selection and keys.
        dense: q, k and v as the kernels read them.
        strides: of their batches, heads and tokens.
    """

    dense: tuple[Tensor, Tensor, Tensor]
    strides: tuple[int, ...]
    group_heads: int
    kv_share: int
    cell: int

    @property
    def pack(self) -> int:
        """Heads of a program."""
        return min(sizes.HEADS, sizes.power_of_two(self.cell))

    @property
    def programs(self) -> int:
        """That serve ROWS queries and `pack` heads each."""
        batch, heads, time, _ = self.dense[0].shape
        return batch * (heads // self.cell) * -(-self.cell // self.pack) * -(-time // sizes.ROWS)


def shape_of(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Shape:
    dense = dense_last(q), dense_last(k), dense_last(v)
    group_heads, kv_share = q.shape[1] // groups, q.shape[1] // k.shape[1]
    strides = tuple(stride for x in dense for stride in x.stride()[:3])
    return Shape(dense, strides, group_heads, kv_share, math.gcd(group_heads, kv_share))


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor,
        scale: float, cap: float | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        from dsa.ops.triton import attend_kernels

        batch, heads, time, dim = q.shape
        shape = shape_of(q, k, v, positions.shape[1])
        out = q.new_empty(q.shape, dtype=torch.float32)
        logsumexp = q.new_empty(batch, heads, time, dtype=torch.float32)
        launch(
            attend_kernels.forward, shape.programs,
            (*shape.dense, flat(sink), positions, counts, out, logsumexp), *shape.strides,
            time, heads, shape.cell, shape.group_heads, shape.kv_share, positions.shape[-1], dim, scale, cap or 0.0,
            SINK=sink is not None, CAP=cap is not None, ROWS=sizes.ROWS, HEADS=shape.pack, SLOTS=sizes.slots(dim),
            DIM=sizes.power(dim),
        )  # fmt: skip
        ctx.scale, ctx.cap = scale, cap
        ctx.save_for_backward(q, k, v, sink, positions, counts, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        ctx.set_materialize_grads(False)
        return out.to(q.dtype), logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> Any:
        if grad is None:
            return (None,) * 8
        q, k, v, sink, positions, counts, out, logsumexp = ctx.saved_tensors
        grad = grad.float().contiguous()
        delta = (grad * out).sum(-1)
        by_sink = None
        if sink is not None:
            by_sink = -((sink.float()[:, None] - logsumexp).exp() * delta).sum((0, 2)).to(sink.dtype)
        given = grad, delta, logsumexp.masked_fill(logsumexp == -math.inf, 0.0)
        grads = gradients(shape_of(q, k, v, positions.shape[1]), positions, counts, *given, ctx.scale, ctx.cap)
        return (*(x.to(like.dtype) for x, like in zip(grads, (q, k, v), strict=True)), by_sink, *[None] * 4)


def gradients(
    shape: Shape, positions: Tensor, counts: Tensor, grad: Tensor, delta: Tensor, logsumexp: Tensor, scale: float,
    cap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Of queries, keys and values, in float32."""
    from dsa.ops.triton import backward_kernels

    q, k, v = shape.dense
    (batch, heads, time, dim), (_, kv_heads, keys, _), slots = q.shape, k.shape, positions.shape[-1]
    by_query = torch.empty_like(grad)
    by_key, by_value = (k.new_empty(k.shape, dtype=torch.float32) for _ in range(2))
    launch(
        backward_kernels.queries_gradient, shape.programs,
        (q, k, v, positions, counts, grad, delta, logsumexp, by_query), *shape.strides, time, heads, shape.cell,
        shape.group_heads, shape.kv_share, slots, dim, scale, cap or 0.0,
        CAP=cap is not None, ROWS=sizes.ROWS, HEADS=shape.pack, SLOTS=sizes.slots(dim), DIM=sizes.power(dim),
    )  # fmt: skip
    launch(
        backward_kernels.keys_gradient, batch * kv_heads * -(-keys // sizes.KEYS),
        (q, k, v, *listed(positions, keys), grad, delta, logsumexp, by_key, by_value), *shape.strides,
        time, keys, heads, shape.group_heads, shape.kv_share, slots, dim, scale, cap or 0.0,
        CAP=cap is not None, KEYS=sizes.KEYS, LIST=sizes.LIST, DIM=sizes.power(dim),
    )  # fmt: skip
    return by_query, by_key, by_value


def inside(positions: Int[Tensor, "batch group time slot"], keys: int) -> Int[Tensor, "batch group time slot"]:
    """Positions as the kernels read them: -1 where one lies outside the keys, which is reported."""
    if positions.numel():
        faults.watch(positions.max(), lambda largest: report_outside(largest, keys))
    return positions.where(positions < keys, -1).int().contiguous()


def listed(
    positions: Int[Tensor, "batch group time slot"], keys: int
) -> tuple[Int[Tensor, "batch group keys_and_one"], Int[Tensor, "batch group entry"]]:
    """For each key the slots of the queries that selected it, in their order: where each key's list begins, and all
    lists. Slots are counted over all queries of a group."""
    flat = positions.flatten(2)
    ordered, entry = flat.where(flat >= 0, keys).sort(dim=-1, stable=True)
    wanted = torch.arange(keys + 1, dtype=ordered.dtype, device=ordered.device).expand(*flat.shape[:2], -1)
    return torch.searchsorted(ordered, wanted.contiguous()), entry
