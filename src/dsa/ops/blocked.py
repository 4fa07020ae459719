"""The ops in plain PyTorch, by blocks of queries: any device, memory O(block x keys), keys outside zones skipped."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.contracts import Call, Scorer, Selection, Trim
from dsa.ops.reference import by_unit, causal, check_loss, from_mask, members, per_token, trimmed
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import check_scores, repeated, scale_of, wide
from dsa.ops.zones import Span, Zones, first_forced, spans

name, selected_only = "blocked", False
TILE = 1 << 20  # elements of the largest temporary: larger ones leave the cache


def covers(call: Call) -> str | None:
    """Everything."""
    return None


def blocks(length: int, per_query: int) -> Iterator[slice]:
    """Slices of the queries such that a tile of `per_query` elements a query stays below TILE."""
    size = max(16, TILE // max(per_query, 1))
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """As `reference.select`, a block of queries at a time; patterns without scored zones compute no score."""
    batch, own, length = limit.shape
    groups = max(scorer.groups, own)
    every = spans(zones, limit, offset, first, scorer.unit, scorer.forced)
    slots = max(int(torch.stack([span.keep * span.unit for span in every]).sum(0).max()), 1)
    parts = []
    for rows in blocks(length, batch * groups * scorer.width * (offset + length)):
        part = [span._replace(**{n: getattr(span, n)[..., rows] for n in ("start", "count", "keep")}) for span in every]
        start, mask = select_rows(scorer, part, rows, (batch, groups), offset, trim)
        chosen = from_mask(mask, slots)
        positions = torch.where(chosen.positions >= 0, chosen.positions + start, -1)
        parts.append(Selection(positions, chosen.counts))
    positions, counts = (torch.cat(x, 2) for x in zip(*parts, strict=True))
    if trim is not None:
        positions = positions[..., : max(int(counts.max()), 1)]
    return Selection(positions, counts)


def select_rows(
    scorer: Scorer, part: list[Span], rows: slice, shape: tuple[int, int], offset: int, trim: Trim | None
) -> tuple[int, Bool[Tensor, "batch group rows key"]]:
    """First key of the columns that these queries can see, and the mask of those they keep."""
    device, unit = part[0].start.device, scorer.unit
    low, high = bounds(part)
    low, high = low // unit * unit, -(-high // unit) * unit
    keys = high - low
    kept = torch.zeros(*shape, rows.stop - rows.start, keys, dtype=torch.bool, device=device)
    scored, seen = torch.zeros_like(kept), torch.zeros_like(kept)
    units = slice(low // unit, min(high, offset + rows.stop) // unit)
    tile = None
    if trim is not None or any(not span.forced and bool(span.count.any()) for span in part):
        tile = scorer.scores(rows, units, offset, device).expand(*shape, -1, -1)
    for span in part:
        moved = span._replace(start=span.start - low // span.unit)
        if span.forced:
            inside = members(moved, keys)
            stop = moved.start + (span.count - span.keep) * span.step
            chosen = inside & (torch.arange(keys, device=device) >= stop[..., None])
            seen |= inside & (unit == 1)
        else:
            if tile is None:
                continue
            inside = members(moved, tile.shape[-1]).expand_as(tile)
            check_scores(tile, inside)
            chosen = best(tile, inside, span.keep.expand(-1, shape[1], -1))
            chosen, inside = (per_token(x, unit, keys) for x in (chosen, inside))
            scored |= chosen
            seen |= inside
        kept |= chosen
    if trim is not None:
        assert tile is not None
        kept = trimmed(trim, per_token(tile, unit, keys) - math.log(unit), kept, scored, seen, unit)
    return low, kept


def bounds(part: list[Span]) -> tuple[int, int]:
    """First and one past the last token that any of these queries can see."""
    low, high = [], []
    for span in part:
        some = span.count > 0
        if some.any():
            low.append(int(span.start[some].min()) * span.unit)
            high.append(int((span.start + (span.count - 1) * span.step + 1)[some].max()) * span.unit)
    return min(low, default=0), max(high, default=1)


def best(scores: Tensor, legal: Tensor, keep: Int[Tensor, "batch group rows"]) -> Bool[Tensor, "b g rows unit"]:
    """The `keep` legal units of highest score: all above the keep-th score, then ties from the lower position."""
    most = min(int(keep.max()), scores.shape[-1])
    if most == 0:
        return torch.zeros_like(legal)
    smallest = torch.finfo(scores.dtype).min
    ranked = torch.where(legal, scores.clamp(min=smallest), -math.inf)
    top = ranked.topk(most, dim=-1).values
    threshold = top.gather(-1, (keep - 1).clamp(min=0, max=most - 1)[..., None])
    above = ranked > threshold
    tied = (ranked == threshold) & legal
    room = keep[..., None] - above.sum(-1, keepdim=True)
    return (above | (tied & (tied.cumsum(-1) <= room))) & (keep > 0)[..., None]


def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """As `reference.attend`; the backward pass recomputes the probabilities block by block."""
    out, logsumexp = _Attend.apply(q, k, v, sink, selection.positions, scale_of(q, scale))
    return out, logsumexp


def attend_with_target(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    selection: Selection,
    groups: int = 1,
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
    """As `reference.attend_with_target`."""
    out, logsumexp = attend(q, k, v, selection, sink, scale=scale)
    return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups, scale=scale)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, sink, positions, scale):
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        logsumexp = torch.empty(q.shape[:-1], dtype=wide(q).dtype, device=q.device)
        for rows in blocks(q.shape[2], q.shape[0] * q.shape[1] * k.shape[2]):
            columns, chosen = chosen_keys(positions[:, :, rows], q.shape[1])
            logits = products(wide(q[:, :, rows]), wide(k[:, :, columns]).mT) * scale
            logits = logits.masked_fill(~chosen, -math.inf)
            lse = logits.logsumexp(-1)
            if sink is not None:
                lse = torch.logaddexp(lse, sink.to(lse.dtype)[:, None])
            out[:, :, rows] = products(probabilities(logits, lse), wide(v[:, :, columns])).to(out.dtype)
            logsumexp[:, :, rows] = lse
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, sink, positions, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        return out, logsumexp

    @staticmethod
    def backward(ctx, grad, _):
        q, k, v, sink, positions, out, logsumexp = ctx.saved_tensors
        scale = ctx.scale
        dq = torch.empty_like(q)
        dk, dv = torch.zeros_like(wide(k)), torch.zeros_like(wide(v))
        delta = (wide(grad) * wide(out)).sum(-1, keepdim=True)
        for rows in blocks(q.shape[2], q.shape[0] * q.shape[1] * k.shape[2]):
            columns, chosen = chosen_keys(positions[:, :, rows], q.shape[1])
            queries, keys, upstream = wide(q[:, :, rows]), wide(k[:, :, columns]), wide(grad[:, :, rows])
            logits = (products(queries, keys.mT) * scale).masked_fill(~chosen, -math.inf)
            p = probabilities(logits, logsumexp[:, :, rows])
            ds = p * (products(upstream, wide(v[:, :, columns]).mT) - delta[:, :, rows]) * scale
            dq[:, :, rows] = products(ds, keys).to(dq.dtype)
            dk[:, :, columns] += by_key_head(ds, k).mT @ by_key_head(queries, k)
            dv[:, :, columns] += by_key_head(p, v).mT @ by_key_head(upstream, v)
        dsink = None
        if sink is not None:
            dsink = -((sink.to(logsumexp.dtype)[:, None] - logsumexp).exp() * delta[..., 0]).sum((0, 2)).to(sink.dtype)
        return dq, dk.to(k.dtype), dv.to(v.dtype), dsink, None, None


def by_key_head(x: Float[Tensor, "batch head row n"], keys: Float[Tensor, "batch kv_head *rest"]) -> Tensor:
    """The rows of all heads that share a key/value head, one head after the other."""
    return x.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)


def products(x: Float[Tensor, "batch head row n"], y: Float[Tensor, "batch kv_head n m"]) -> Tensor:
    """x @ y, each head with its key/value head."""
    return (by_key_head(x, y) @ y).view(*x.shape[:3], -1)


def probabilities(logits: Tensor, logsumexp: Tensor) -> Tensor:
    """softmax from a known log-sum-exp; a row without keys has no probability."""
    return (logits - logsumexp.masked_fill(logsumexp == -math.inf, 0.0)[..., None]).exp()


def chosen_keys(positions: Int[Tensor, "b g rows slot"], heads: int) -> tuple[slice, Bool[Tensor, "b h rows key"]]:
    """The columns between the nearest and farthest selected key, and per head which of them are selected."""
    used = positions >= 0
    if not used.any():
        return slice(0, 1), torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=positions.device)
    start, stop = int(positions[used].min()), int(positions.max()) + 1
    mask = torch.zeros(*positions.shape[:-1], stop - start + 1, dtype=torch.bool, device=positions.device)
    mask.scatter_(-1, torch.where(used, positions - start, stop - start).long(), True)
    return slice(start, stop), repeated(mask[..., :-1], heads)


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`."""
    time, keys = q.shape[2], k.shape[2]
    parts = []
    for rows in blocks(time, q.shape[0] * q.shape[1] * keys):
        stop = keys - time + rows.stop
        logits = products(wide(q[:, :, rows]), wide(k[:, :, :stop]).mT) * scale_of(q, scale)
        mask = causal(rows.stop - rows.start, stop, q.device)
        parts.append(logits.masked_fill(~mask, -math.inf).logsumexp(-1))
    logsumexp = torch.cat(parts, 2)
    return logsumexp if sink is None else torch.logaddexp(logsumexp, sink.to(logsumexp.dtype)[:, None])


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`; the gradient is taken together with the loss, so nothing of a tile is kept."""
    check_loss(features, target, selection)
    return _IndexerLoss.apply(features.queries, features.keys, features.weights, features, target, selection)


class _IndexerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, weights, features, target, selection):
        inputs = [x for x in (queries, keys, weights) if x is not None]
        wanted = any(ctx.needs_input_grad[:3])
        gradients = [torch.zeros_like(x) for x in inputs]
        count = target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2]
        total, valid = queries.new_zeros(()), queries.new_zeros(())
        for rows in blocks(queries.shape[2], queries.shape[0] * queries.shape[1] * features.width * count):
            columns, scope = scope_of(features, selection, rows, count)
            tokens = slice(columns.start * features.unit, columns.stop * features.unit)
            with torch.enable_grad():
                leaves = [x.detach().requires_grad_(wanted) for x in inputs]
                tile = features_from(features, leaves).scores(rows, columns)
            raw = target[:, :, rows, tokens] if isinstance(target, Tensor) else target.scores(rows, tokens)
            p = by_unit(raw.to(tile.dtype), features.unit).sum(-1).masked_fill(~scope, 0.0)
            mass = p.sum(-1, keepdim=True)
            p = p / mass.where(mass > 0, 1.0)
            index = tile.detach().masked_fill(~scope, -math.inf).masked_fill(mass == 0, 0.0)
            log_index = index.log_softmax(-1)
            total += (torch.special.xlogy(p, p) - p * log_index.masked_fill(~scope, 0.0)).sum()
            valid += (mass > 0).sum()
            if wanted:
                slope = (log_index.exp() - p).masked_fill(~scope | (mass == 0), 0.0)
                for gradient, part in zip(gradients, torch.autograd.grad(tile, leaves, slope), strict=True):
                    gradient += part
        valid = valid.clamp(min=1)
        ctx.save_for_backward(*(gradient / valid for gradient in gradients))
        ctx.weighted = weights is not None
        return total / valid

    @staticmethod
    def backward(ctx, grad):
        gradients = [grad * gradient for gradient in ctx.saved_tensors]
        return (*gradients, *([] if ctx.weighted else [None]), None, None, None)


def features_from(features: IndexFeatures, tensors: list[Tensor]) -> IndexFeatures:
    """The features with other tensors in place of queries, keys and (if there are any) weights."""
    queries, keys, *weights = tensors
    return features._replace(queries=queries, keys=keys, weights=weights[0] if weights else None)


def scope_of(
    features: IndexFeatures, selection: Selection | None, rows: slice, keys: int
) -> tuple[slice, Bool[Tensor, "..."]]:
    """The columns of units in scope of these queries, and which of them: as `reference.scope_of`."""
    unit, device = features.unit, features.queries.device
    offset = keys - features.queries.shape[2]
    if selection is None:
        low, scope = 0, causal(rows.stop - rows.start, offset + rows.stop, device)[None, None]
    else:
        positions = selection.positions[:, :, rows]
        columns, scope = chosen_keys(positions, positions.shape[1])
        low = columns.start
    if features.forced:
        fence = first_forced(features.forced, torch.arange(offset + rows.start, offset + rows.stop, device=device))
        scope = scope & (torch.arange(low, low + scope.shape[-1], device=device) < fence[:, None])
    scope = by_unit(torch.nn.functional.pad(scope, (low % unit, 0)), unit).all(-1)
    return slice(low // unit, low // unit + scope.shape[-1]), scope
