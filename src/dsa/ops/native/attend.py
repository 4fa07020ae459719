"""Attending on the fused CPU kernels, forward and backward."""

import ctypes
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.contracts import SelectedMass, Selection
from dsa.ops.native import arguments
from dsa.ops.native.arguments import (
    Heads,
    address,
    asked,
    call,
    heads,
    i64,
    kernel_indices,
    loaded,
    pointer,
    scratch,
    single,
    structure,
    tile_keys,
    units,
    workspace,
)
from dsa.ops.native.pack import CAPPED
from dsa.ops.scorers import TrueAttention
from dsa.ops.scores import scale_of

FORWARD_TILE, BACKWARD_TILE = 1 << 22, 1 << 21
"""Bytes of a tile of keys: measured best with a second-level cache of 2 MB."""
FEW = 2
"""Queries are few where their selections together hold not one in so many keys: those are then read where they lie."""
KEPT_MASS = 1 << 28
"""Bytes of probabilities that attending leaves for the indexer loss at most, with the logits that wait for the last of
several tiles: as many as 8 rows of 32768 tokens with 256 keys each take, of which a step holds many times that."""

ATTEND = (
    "q k v out *logsumexp *sink *positions *counts *bounds batch heads kv_heads groups time keys slots scale tile "
    "parts threads *scratch scratch_per_thread"
)
AttendArgs = structure("AttendArgs", ATTEND, scale=ctypes.c_double, **dict.fromkeys("q k v out".split(), Heads))
BackwardArgs = structure(
    "BackwardArgs",
    f"{ATTEND} *rest *rest_counts *blocks *block_counts most grad_out grad_q grad_k grad_v part_stride *grad_sink",
    scale=ctypes.c_double,
    **dict.fromkeys("q k v out grad_out grad_q grad_k grad_v".split(), Heads),
)


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
    """As `reference.attend` without a cap; the output lies in memory as [batch, time, head, dim]."""
    assert cap is None, CAPPED
    given = q, k, v, sink, *kernel_indices(selection), None, scale_of(q, scale)
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, sink))
    out, logsumexp = Attend.apply(*given) if learns else attended(*given)
    return out.to(q.dtype), logsumexp


def attend_with_target(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    groups: int = 1,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
    """As `reference.attend_with_target` without a cap; the target holds the selection's mass where there is room."""
    assert cap is None, CAPPED
    sums = room_for_mass(q, k, selection, groups)
    out, logsumexp = Attend.apply(q, k, v, sink, *kernel_indices(selection), sums, scale_of(q, scale))
    mass = None if sums is None else SelectedMass(sums, selection)
    return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups, mass, scale)


def room_for_mass(
    q: Tensor, k: Tensor, selection: Selection, groups: int
) -> Float[Tensor, "group batch time padded"] | None:
    """For the probabilities summed over each group's heads.

    None where they would be too many, the selection's groups are others, or queries are few.
    """
    batch, own_groups, time, slots = selection.positions.shape
    keys, dim = k.shape[2:]
    if few(time, slots, keys) or own_groups != groups:
        return None
    shape = (groups, batch, time, -(-slots // 16) * 16)
    waiting = torch.get_num_threads() * time * slots if tile_keys(keys, dim, 2, FORWARD_TILE) < keys else 0
    return torch.empty(shape) if 4 * (math.prod(shape) + waiting) <= KEPT_MASS else None


def few(time: int, slots: int, keys: int) -> bool:
    """Whether packing all keys would cost more than reading those that are selected."""
    return FEW * time * slots <= keys


def attended(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor, mass: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Output and log-sum-exp in float32; `mass` is filled, if given."""
    batch, heads_, time, dim = q.shape
    out = torch.empty(batch, time, heads_, dim).transpose(1, 2)
    logsumexp = torch.empty(batch, heads_, time)
    run_forward(single(q), single(k), single(v), sink, positions, counts, out, logsumexp, mass, scale)
    return out, logsumexp


class Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor,
        mass: Tensor | None, scale: float,
    ) -> Any:  # fmt: skip
        out, logsumexp = attended(q, k, v, sink, positions, counts, mass, scale)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, sink, positions, counts, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        ctx.set_materialize_grads(False)
        return out.to(q.dtype), logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, _: None) -> Any:
        if grad_out is None:
            return (None,) * 8
        q, k, v, sink, positions, counts, out, logsumexp = ctx.saved_tensors
        inputs = single(q), single(k), single(v), sink
        grads = run_backward(*inputs, positions, counts, out, logsumexp, single(grad_out), ctx.scale)
        pairs = zip(grads, (q, k, v, sink), strict=True)
        wanted = (None if g is None or x is None else g.to(x.dtype) for g, x in pairs)
        return (*wanted, None, None, None, None)


def run_forward(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor, out: Tensor,
    logsumexp: Tensor, mass: Tensor | None, scale: float,
) -> None:  # fmt: skip
    """Fill `out`, `logsumexp` and, if given, `mass`."""
    (batch, heads_, time, dim), keys, slots = q.shape, k.shape[2], positions.shape[-1]
    threads, structures = torch.get_num_threads(), (AttendArgs, Heads)
    sink = None if sink is None else single(sink)

    def told(bounds: Tensor | None, tile: int, parts: int, memory: Tensor, size: int) -> Any:
        return ctypes.byref(
            AttendArgs(
                heads(q), heads(k), heads(v), heads(out), address(logsumexp), address(sink), address(positions),
                address(counts), address(bounds), batch, heads_, k.shape[1], positions.shape[1], time, keys, slots,
                scale, tile, parts, threads, address(memory), size,
            )
        )  # fmt: skip

    if mass is None and few(time, slots, keys):
        kernels = loaded("few.cpp", structures, HEAD_DIM=dim)
        threads = min(threads, max(1, 2 * q.numel() * slots // arguments.SHARED))
        args = told(None, keys, 1, *scratch(kernels, "few_scratch", threads, slots))
        done = call(kernels.attend_few, args, result=ctypes.c_bool)
    else:
        kernels = loaded("attend.cpp", structures, HEAD_DIM=dim)
        chunks = heads_ if mass is None else mass.shape[0]
        tile, rows = tile_keys(keys, dim, 2, FORWARD_TILE), batch * chunks
        # Where the threads can have a part each, no more: each packs all keys, and all hold as many pairs.
        shared_out = rows > 0 and threads % rows == 0
        parts = max(1, min(threads // rows, time // 64)) if shared_out else units(rows, threads, time // 64)
        bounds = room_for_bounds(positions, keys, tile)
        kept = mass is not None and tile < keys
        args = told(bounds, tile, parts, *scratch(kernels, "forward_scratch", threads, tile, time, slots, kept))
        done = call(kernels.attend_forward, args, i64(chunks), pointer(address(mass)), result=ctypes.c_bool)
    if not done:
        raise IndexError(f"attend: the selection holds positions outside the {keys} keys.")


def run_backward(
    q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, counts: Tensor, out: Tensor,
    logsumexp: Tensor, grad_out: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """The gradients of q, k, v and the sink."""
    (batch, heads_, time, dim), (_, kv_heads, keys, _), threads = q.shape, k.shape, torch.get_num_threads()
    groups, slots = positions.shape[1], positions.shape[-1]
    kernels = loaded("backward.cpp", (BackwardArgs, Heads), HEAD_DIM=dim)
    parts, columns = units(batch * kv_heads, threads, keys // 64), asked(kernels, "columns_of_a_block")
    tile = tile_keys(keys, dim, 4, BACKWARD_TILE)
    tile = tile if parts == 1 else min(tile, -(-keys // parts))
    tile = -(-tile // columns) * columns
    parts = min(parts, -(-keys // tile))
    memory, size = scratch(kernels, "backward_scratch", threads, tile, time, heads_ // kv_heads)
    bounds = room_for_bounds(positions, keys, tile)
    rest = workspace.take("rest", positions.numel(), torch.int32)
    rest_counts = torch.empty_like(counts)
    strips = batch * groups * -(-time // asked(kernels, "rows_of_a_strip"))
    most = asked(kernels, "blocks_of_a_strip", keys, slots)
    blocks = workspace.take("blocks", strips * most * asked(kernels, "bytes_of_a_block"), torch.uint8)
    block_counts = torch.empty(strips, dtype=torch.int32)
    sink = None if sink is None else single(sink)
    like, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
    grad_q = torch.empty_strided((parts, *q.shape), (q.numel(), *like.stride()))
    grad_sink = torch.empty(batch, heads_, parts)
    args = BackwardArgs(
        heads(q), heads(k), heads(v), heads(out), address(logsumexp), address(sink), address(positions),
        address(counts), address(bounds), batch, heads_, kv_heads, groups, time, keys, slots, scale, tile, parts,
        threads, address(memory), size, address(rest), address(rest_counts), address(blocks), address(block_counts),
        most, heads(grad_out), heads(grad_q[0]), heads(grad_k), heads(grad_v), q.numel(), address(grad_sink),
    )  # fmt: skip
    kernels.attend_backward(ctypes.byref(args))
    grad_q = grad_q[0] if parts == 1 else grad_q.sum(0)
    return grad_q, grad_k, grad_v, None if sink is None else grad_sink.sum((0, 2))


def room_for_bounds(positions: Tensor, keys: int, tile: int) -> Tensor:
    batch, groups, time, _ = positions.shape
    return torch.empty(batch, groups, max(-(-keys // tile), 1) + 1, time, dtype=torch.int32)
