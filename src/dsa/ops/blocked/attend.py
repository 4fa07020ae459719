"""Attending by blocks of queries and tiles of keys."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.blocked import tiles
from dsa.ops.contracts import Selection
from dsa.ops.reference import causal, dense_mask
from dsa.ops.scores import capped, check_positions, finite, repeated, scale_of, wide
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
    """As `reference.attend`; the backward pass recomputes the probabilities block by block."""
    out, logsumexp = _Attend.apply(q, k, v, sink, selection.positions, scale_of(q, scale), cap)
    return out, logsumexp


attend_with_target = with_target(attend)


class Inputs(NamedTuple):
    """q, k and v in float32 or wider, zero where they are not finite: times the zero of what was not selected, such a
    number would spoil every row.

    Args:
        broken: queries, keys and values that hold one; None if all are finite.
    """

    q: Float[Tensor, "batch head time dim"]
    k: Float[Tensor, "batch kv_head key dim"]
    v: Float[Tensor, "batch kv_head key dim"]
    scale: float
    cap: float | None
    broken: tuple[Bool[Tensor, "batch head time"], Bool[Tensor, "batch head key"]] | None

    def logits(self, rows: slice, keys: slice, chosen: Bool[Tensor, "batch head row key"]) -> Tensor:
        """-inf where not chosen, NaN where query, key or value is broken."""
        logits = capped(products(self.q[:, :, rows], self.k[:, :, keys].mT) * self.scale, self.cap)
        if self.broken is not None:
            queries, others = self.broken
            logits = logits.masked_fill(queries[:, :, rows, None] | others[:, :, None, keys], math.nan)
        return logits.masked_fill(~chosen, -math.inf)

    def slope(self, logits: Tensor, chosen: Bool[Tensor, "batch head row key"]) -> Tensor | float:
        """Derivative of the chosen logits by the products of query and key."""
        if self.cap is None:
            return self.scale
        return (self.scale * (1 - (logits / self.cap).square())).masked_fill(~chosen, 0.0)


def inputs(q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float | None) -> Inputs:
    q, k, v = wide(q), wide(k), wide(v)
    whole = [x.isfinite().all(-1) for x in (q, k, v)]
    if all(bool(x.all()) for x in whole):
        return Inputs(q, k, v, scale, cap, None)
    broken = ~whole[0], repeated(~(whole[1] & whole[2]), q.shape[1])
    return Inputs(finite(q), finite(k), finite(v), scale, cap, broken)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, sink: Tensor | None, positions: Tensor, scale: float,
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        x = inputs(q, k, v, scale, cap)
        out, logsumexp = torch.empty_like(x.q), torch.empty_like(x.q[..., 0])
        for rows, mask in row_masks(positions, q.shape[1], k.shape[2]):
            # Tile by tile: what was summed so far shrinks when a larger logit comes. A tile without keys of a row
            # changes nothing of it.
            shape = x.q[:, :, rows, 0].shape
            peak = torch.full(shape, -math.inf, device=q.device, dtype=out.dtype)
            total, summed = torch.zeros_like(peak), torch.zeros_like(x.q[:, :, rows])
            if sink is not None:
                peak, total = sink.to(out.dtype)[:, None].expand(shape), torch.ones_like(peak)
            for keys in tiles.columns(mask):
                logits = x.logits(rows, keys, repeated(mask[..., keys], q.shape[1]))
                higher = torch.maximum(peak, logits.amax(-1))
                base = higher.masked_fill(higher == -math.inf, 0.0)
                p, shrink = (logits - base[..., None]).exp(), (peak - base).exp()
                total = total * shrink + p.sum(-1)
                summed = summed * shrink[..., None] + products(p, x.v[:, :, keys])
                peak = higher
            out[:, :, rows] = summed / total.masked_fill(total == 0, 1.0)[..., None]
            logsumexp[:, :, rows] = peak + total.log()
        ctx.scale, ctx.cap = scale, cap
        ctx.save_for_backward(q, k, v, sink, positions, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        return out.to(q.dtype), logsumexp

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sink, positions, out, logsumexp = ctx.saved_tensors
        x = inputs(q, k, v, ctx.scale, ctx.cap)
        upstream = wide(grad)
        delta = (upstream * out).sum(-1)
        broken = ~upstream.isfinite().all(-1)
        spoiled = x.broken is not None or bool(broken.any())
        upstream = finite(upstream) if spoiled else upstream
        dq, dk, dv = torch.zeros_like(x.q), torch.zeros_like(x.k), torch.zeros_like(x.v)
        for rows, mask in row_masks(positions, q.shape[1], k.shape[2]):
            for keys in tiles.columns(mask):
                chosen = repeated(mask[..., keys], q.shape[1])
                logits = x.logits(rows, keys, chosen)
                p = probabilities(logits, logsumexp[:, :, rows])
                if spoiled:
                    p = p.masked_fill(broken[:, :, rows, None], math.nan).masked_fill(~chosen, 0.0)
                ds = p * (products(upstream[:, :, rows], x.v[:, :, keys].mT) - delta[:, :, rows, None])
                ds = ds * x.slope(logits, chosen)
                if spoiled:
                    ds = ds.masked_fill(~chosen, 0.0)
                dq[:, :, rows] += products(ds, x.k[:, :, keys])
                dk[:, :, keys] += by_key_head(ds, k).mT @ by_key_head(x.q[:, :, rows], k)
                dv[:, :, keys] += by_key_head(p, v).mT @ by_key_head(upstream[:, :, rows], v)
        dsink = None
        if sink is not None:
            share = (sink.to(logsumexp.dtype)[:, None] - logsumexp).exp()
            dsink = -(share * delta).sum((0, 2)).to(sink.dtype)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dsink, None, None, None


def row_masks(
    positions: Int[Tensor, "batch group time slot"], heads: int, keys: int
) -> Iterator[tuple[slice, Bool[Tensor, "batch group row key"]]]:
    """Blocks of queries, and which keys each of them selected."""
    batch, groups, time, _ = positions.shape
    check_positions(positions, keys)
    for rows in tiles.blocks(time, batch * max(heads * min(keys, tiles.WIDTH), groups * keys // 4)):
        yield rows, dense_mask(positions[:, :, rows], keys)


def by_key_head(x: Float[Tensor, "batch head row n"], keys: Float[Tensor, "batch kv_head *rest"]) -> Tensor:
    """The rows of all heads that share a key/value head, one head after the other."""
    return x.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)


def products(x: Float[Tensor, "batch head row n"], y: Float[Tensor, "batch kv_head n m"]) -> Tensor:
    """x @ y, each head with its key/value head."""
    return (by_key_head(x, y) @ y).view(*x.shape[:3], y.shape[-1])


def probabilities(logits: Tensor, logsumexp: Tensor) -> Tensor:
    """softmax from a known log-sum-exp; a row without keys has no probability."""
    return (logits - logsumexp.masked_fill(logsumexp == -math.inf, 0.0)[..., None]).exp()


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`."""
    time, keys = q.shape[2], k.shape[2]
    parts = []
    for rows in tiles.blocks(time, q.shape[0] * q.shape[1] * keys):
        stop = keys - time + rows.stop
        logits = capped(products(wide(q[:, :, rows]), wide(k[:, :, :stop]).mT) * scale_of(q, scale), cap)
        mask = causal(rows.stop - rows.start, stop, q.device)
        parts.append(logits.masked_fill(~mask, -math.inf).logsumexp(-1))
    logsumexp = torch.cat(parts, 2)
    return logsumexp if sink is None else torch.logaddexp(logsumexp, sink.to(logsumexp.dtype)[:, None])
