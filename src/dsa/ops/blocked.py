"""The ops in plain PyTorch, by blocks of queries: any device, memory O(block x keys), keys outside zones skipped."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.contracts import IndexFeatures, Scorer, Selection, TrueAttention
from dsa.ops.reference import Trim, causal, check_loss, from_mask, members, trimmed
from dsa.ops.scores import block_of, check_scores, groups_of, score, wide
from dsa.ops.zones import Span, Zones, spans

TILE = 1 << 20  # elements of the largest temporary: larger ones leave the cache


def blocks(length: int, per_query: int) -> Iterator[slice]:
    """Slices of the queries such that a tile of `per_query` elements a query stays below TILE."""
    size = max(16, TILE // max(per_query, 1))
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """As `reference.select`, a block of queries at a time; patterns without scored zones compute no score."""
    batch, length = limit.shape
    groups, block = groups_of(scorer), block_of(scorer)
    heads = scorer.queries.shape[3] if isinstance(scorer, IndexFeatures) else 1
    every = spans(zones, limit, offset, first, block)
    slots = max(int(torch.stack([span.keep * span.unit for span in every]).sum(0).max()), 1)
    parts = []
    for rows in blocks(length, batch * groups * heads * (offset + length)):
        part = [span._replace(**{n: getattr(span, n)[:, rows] for n in ("start", "count", "keep")}) for span in every]
        start, mask = select_rows(scorer, part, rows, groups, offset, block, trim)
        chosen = from_mask(mask, slots)
        positions = torch.where(chosen.positions >= 0, chosen.positions + start, -1)
        parts.append(Selection(positions, chosen.counts))
    positions, counts = (torch.cat(x, 2) for x in zip(*parts, strict=True))
    if trim is not None:
        positions = positions[..., : max(int(counts.max()), 1)]
    return Selection(positions, counts)


def select_rows(
    scorer: Scorer, part: list[Span], rows: slice, groups: int, offset: int, block: int, trim: Trim | None
) -> tuple[int, Bool[Tensor, "batch group rows key"]]:
    """First key of the columns that these queries can see, and the mask of those they keep."""
    batch, device = part[0].start.shape[0], part[0].start.device
    low, high = bounds(part)
    low, high = low // block * block, -(-high // block) * block
    shape = (batch, groups, rows.stop - rows.start, high - low)
    kept = torch.zeros(shape, dtype=torch.bool, device=device)
    scored, seen = torch.zeros_like(kept), torch.zeros_like(kept)
    units = slice(low // block, min(high, offset + rows.stop) // block)
    tile = None
    if trim is not None or any(not span.forced and bool(span.count.any()) for span in part):
        tile = score(scorer, rows, units, offset, device).expand(batch, groups, -1, -1)
    for span in part:
        moved = span._replace(start=span.start - low // span.unit)
        if span.forced:
            inside = members(moved, high - low)
            stop = moved.start + (span.count - span.keep) * span.step
            chosen = inside & (torch.arange(high - low, device=device) >= stop[..., None])
            chosen, inside = chosen[:, None], inside[:, None]
        else:
            if tile is None:
                continue
            inside = members(moved, tile.shape[-1])[:, None].expand_as(tile)
            check_scores(tile, inside)
            chosen = best(tile, inside, span.keep[:, None].expand(-1, groups, -1))
            chosen, inside = (
                torch.nn.functional.pad(x.repeat_interleave(block, -1), (0, high - low - x.shape[-1] * block))
                for x in (chosen, inside)
            )
            scored |= chosen
        kept |= chosen
        seen |= inside
    if trim is not None:
        assert tile is not None
        kept = trimmed(trim, torch.nn.functional.pad(tile, (0, high - low - tile.shape[-1])), kept, scored, seen)
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
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """As `reference.attend`; the backward pass recomputes the probabilities block by block."""
    out, logsumexp = _Attend.apply(q, k, v, sink, selection.positions)
    return out, logsumexp


def attend_with_target(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    groups: int = 1,
) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
    """As `reference.attend_with_target`."""
    out, logsumexp = attend(q, k, v, selection)
    return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, sink, positions):
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        logsumexp = torch.empty(q.shape[:-1], dtype=wide(q).dtype, device=q.device)
        for rows in blocks(q.shape[2], q.shape[0] * q.shape[1] * k.shape[2]):
            columns, chosen = chosen_keys(positions[:, :, rows], q.shape[1])
            logits = wide(q[:, :, rows]) @ wide(k[:, :, columns]).mT * q.shape[-1] ** -0.5
            logits = logits.masked_fill(~chosen, -math.inf)
            lse = logits.logsumexp(-1)
            if sink is not None:
                lse = torch.logaddexp(lse, sink.to(lse.dtype)[:, None])
            out[:, :, rows] = (probabilities(logits, lse) @ wide(v[:, :, columns])).to(out.dtype)
            logsumexp[:, :, rows] = lse
        ctx.save_for_backward(q, k, v, sink, positions, out, logsumexp)
        ctx.mark_non_differentiable(logsumexp)
        return out, logsumexp

    @staticmethod
    def backward(ctx, grad, _):
        q, k, v, sink, positions, out, logsumexp = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq = torch.empty_like(q)
        dk, dv = torch.zeros_like(wide(k)), torch.zeros_like(wide(v))
        delta = (wide(grad) * wide(out)).sum(-1, keepdim=True)
        for rows in blocks(q.shape[2], q.shape[0] * q.shape[1] * k.shape[2]):
            columns, chosen = chosen_keys(positions[:, :, rows], q.shape[1])
            queries, keys, upstream = wide(q[:, :, rows]), wide(k[:, :, columns]), wide(grad[:, :, rows])
            logits = (queries @ keys.mT * scale).masked_fill(~chosen, -math.inf)
            p = probabilities(logits, logsumexp[:, :, rows])
            ds = p * (upstream @ wide(v[:, :, columns]).mT - delta[:, :, rows]) * scale
            dq[:, :, rows] = (ds @ keys).to(dq.dtype)
            dk[:, :, columns] += ds.mT @ queries
            dv[:, :, columns] += p.mT @ upstream
        dsink = None
        if sink is not None:
            dsink = -((sink.to(logsumexp.dtype)[:, None] - logsumexp).exp() * delta[..., 0]).sum((0, 2)).to(sink.dtype)
        return dq, dk.to(k.dtype), dv.to(v.dtype), dsink, None


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
    return slice(start, stop), mask[..., :-1].repeat_interleave(heads // positions.shape[1], 1)


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"], k: Float[Tensor, "batch head key dim"]
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp`."""
    time, keys = q.shape[2], k.shape[2]
    parts = []
    for rows in blocks(time, q.shape[0] * q.shape[1] * keys):
        stop = keys - time + rows.stop
        logits = wide(q[:, :, rows]) @ wide(k[:, :, :stop]).mT * q.shape[-1] ** -0.5
        mask = causal(rows.stop - rows.start, stop, q.device)
        parts.append(logits.masked_fill(~mask, -math.inf).logsumexp(-1))
    return torch.cat(parts, 2)


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`; the gradient is taken together with the loss, so nothing of a tile is kept."""
    check_loss(features, target, selection)
    return _IndexerLosses.apply([features], target, selection, *features[:3])[0]


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """As `reference.indexer_losses`; each tile of the target is computed once, gradients together with the losses."""
    for each in features:
        check_loss(each, target, None)
    return list(_IndexerLosses.apply(features, target, None, *(x for each in features for x in each[:3])))


class _IndexerLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, target, selection, *tensors):
        queries, keys = tensors[:2]
        time, count = queries.shape[2], keys.shape[2]
        wanted = [any(ctx.needs_input_grad[i : i + 3]) for i in range(3, 3 + len(tensors), 3)]
        totals = [each.queries.new_zeros(()) for each in features]
        valid = [each.queries.new_zeros(()) for each in features]
        gradients = [[None if x is None else torch.zeros_like(x) for x in each[:3]] for each in features]
        # Cut by the target alone, so that no loss depends on the shapes of the others.
        width = target.shape[1] if isinstance(target, Tensor) else target.queries.shape[1]
        for rows in blocks(time, queries.shape[0] * width * count):
            columns, scope = scope_of(selection, rows, time, count, queries.device)
            raw = target[:, :, rows, columns] if isinstance(target, Tensor) else score(target, rows, columns)
            p = wide(raw.detach()).masked_fill(~scope, 0.0)
            mass = p.sum(-1, keepdim=True)
            p = p / mass.where(mass > 0, 1.0)
            for n, each in enumerate(features):
                loss, found = tile_loss(each, p, mass, scope, rows, columns, wanted[n])
                totals[n] += loss
                valid[n] += (mass > 0).sum() * (each.queries.shape[1] // mass.shape[1])
                for gradient, part in zip(gradients[n], found, strict=True):
                    if gradient is not None and part is not None:
                        gradient += part
        shares = [1 / x.clamp(min=1) for x in valid]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*shares, *(x for each in gradients for x in each))
        return tuple(total * share for total, share in zip(totals, shares, strict=True))

    @staticmethod
    def backward(ctx, *upstream):
        saved = ctx.saved_tensors
        shares, gradients = saved[: len(upstream)], saved[len(upstream) :]
        factors = [
            None if x is None else x * share for x, share in zip(upstream, shares, strict=True) for _ in range(3)
        ]
        pairs = zip(factors, gradients, strict=True)
        return (None, None, None, *(None if f is None or g is None else f * g for f, g in pairs))


def tile_loss(
    features: IndexFeatures, p: Tensor, mass: Tensor, scope: Tensor, rows: slice, columns: slice, wanted: bool
) -> tuple[Float[Tensor, ""], list[Tensor | None]]:
    """The loss, summed over these rows, and its gradients by queries, keys and weights if wanted."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_(wanted) for x in features[:3] if x is not None]
        tile = score(features_from(features, leaves), rows, columns)
    p = p.to(tile.dtype)
    index = tile.detach().masked_fill(~scope, -math.inf).masked_fill(mass == 0, 0.0)
    log_index = index.log_softmax(-1)
    loss = (torch.special.xlogy(p, p) - p * log_index.masked_fill(~scope, 0.0)).sum()
    if not wanted:
        return loss, [None] * 3
    slope = (log_index.exp() - p).masked_fill(~scope | (mass == 0), 0.0)
    found = torch.autograd.grad(tile, leaves, slope)
    return loss, [*found, *[None] * (3 - len(leaves))]


def features_from(features: IndexFeatures, tensors: list[Tensor]) -> IndexFeatures:
    """The features with other tensors in place of queries, keys and (if there are any) weights."""
    queries, keys, *weights = tensors
    return features._replace(queries=queries, keys=keys, weights=weights[0] if weights else None)


def scope_of(
    selection: Selection | None, rows: slice, time: int, keys: int, device: torch.device
) -> tuple[slice, Bool[Tensor, "..."]]:
    """The columns in scope of these queries, and which of them."""
    if selection is None:
        stop = keys - time + rows.stop
        return slice(0, stop), causal(rows.stop - rows.start, stop, device)
    positions = selection.positions[:, :, rows]
    return chosen_keys(positions, positions.shape[1])
