"""The definition of every op: dense, slow, plainly right, in any float dtype. Other backends are tested against it."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.contracts import IndexFeatures, ScoredRows, Scorer, Selection, TrueAttention
from dsa.ops.scores import block_of, check_scores, groups_of, score
from dsa.ops.zones import Span, Zones, spans

Trim = Callable[[ScoredRows], Int[Tensor, "batch group time"]]


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
) -> Selection:
    """The keys each query keeps: forced zones first, then each scored zone's best; ties go to the lower position.

    Args:
        limit: most keys a query may keep, forced ones included.
        trim: how many of the kept keys stay, counted with the forced ones; drops the lowest scores over all zones.
        offset: position of the first query; keys are the positions 0 ... offset + time - 1.
        first: first real key of each left-padded row.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number.
    """
    batch, length = limit.shape
    keys, groups, block = offset + length, groups_of(scorer), block_of(scorer)
    everything = score(scorer, slice(0, length), slice(0, keys // block), offset, limit.device)
    everything = everything.expand(batch, groups, -1, -1)
    kept = torch.zeros(batch, groups, length, keys, dtype=torch.bool, device=limit.device)
    scored = torch.zeros_like(kept)
    seen = torch.zeros_like(kept)
    for span in spans(zones, limit, offset, first, block):
        inside = members(span, keys // span.unit)[:, None]
        if span.forced:
            stop = span.start + (span.count - span.keep) * span.step
            chosen = inside & (torch.arange(keys, device=limit.device) >= stop[:, None, :, None])
        else:
            check_scores(everything, inside.expand_as(everything))
            chosen = best(everything, inside.expand_as(everything), span.keep[:, None].expand(-1, groups, -1))
            chosen, inside = (x.repeat_interleave(span.unit, -1) for x in (chosen, inside))
            chosen, inside = (torch.nn.functional.pad(x, (0, keys - x.shape[-1])) for x in (chosen, inside))
            scored |= chosen
        kept |= chosen
        seen |= inside
    if trim is not None:
        kept = trimmed(trim, everything, kept, scored, seen)
    return from_mask(kept)


def members(span: Span, units: int) -> Bool[Tensor, "batch time unit"]:
    """Which units lie in a span."""
    unit = torch.arange(units, device=span.start.device)
    distance = unit - span.start[..., None]
    return (distance >= 0) & (distance % span.step == 0) & (distance < (span.count * span.step)[..., None])


def best(scores: Tensor, legal: Tensor, keep: Int[Tensor, "batch group time"]) -> Bool[Tensor, "b g t unit"]:
    """The `keep` legal units of highest score, ties to the lower position."""
    smallest = torch.finfo(scores.dtype).min
    ranked = torch.where(legal, scores.clamp(min=smallest), -math.inf).sort(dim=-1, descending=True, stable=True)
    first = torch.arange(scores.shape[-1], device=scores.device) < keep[..., None]
    return torch.zeros_like(legal).scatter(-1, ranked.indices, first) & legal


def trimmed(trim: Trim, scores: Tensor, kept: Tensor, scored: Tensor, seen: Tensor) -> Bool[Tensor, "b g t s"]:
    """Keep as many of the kept keys as `trim` says, dropping the lowest scored ones."""
    forced = kept & ~scored
    row = torch.where(seen, scores, -math.inf)
    logsumexp = row.logsumexp(-1)
    probability = (row - logsumexp[..., None]).exp().nan_to_num(0.0)
    entropy = -(probability * torch.where(probability > 0, row - logsumexp[..., None], 0.0)).sum(-1)
    slots = max(int(scored.sum(-1).max()), 1)
    rows = ScoredRows(
        scores=torch.where(scored, scores, -math.inf).sort(dim=-1, descending=True).values[..., :slots],
        forced=forced.sum(-1),
        forced_logsumexp=torch.where(forced, scores, -math.inf).logsumexp(-1),
        logsumexp=logsumexp,
        entropy=entropy,
    )
    return forced | best(scores, scored, (trim(rows) - rows.forced).clamp(min=0))


def attend(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    sink: Float[Tensor, "head"] | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Float[Tensor, "batch head time"]]:
    """Softmax attention of each query over its selected keys alone, logits scaled by dim^-1/2.

    Args:
        sink: one more logit per head that takes probability and gives no value.

    Returns:
        output, and the log-sum-exp of the logits (a measurement: it carries no gradient). A query without keys
        gets 0 and -inf (or the sink).
    """
    chosen = to_mask(selection, k.shape[-2]).repeat_interleave(q.shape[1] // selection.positions.shape[1], 1)
    logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~chosen, -math.inf)
    if sink is not None:
        logits = torch.cat([logits, sink[None, :, None, None].expand(*logits.shape[:-1], 1)], -1)
    logsumexp = logits.detach().logsumexp(-1)
    # A row of -inf alone has no softmax: give it finite logits, then no probability.
    empty = logsumexp == -math.inf
    probability = logits.masked_fill(empty[..., None], 0.0).softmax(-1).masked_fill(empty[..., None], 0.0)
    return probability[..., : k.shape[-2]] @ v, logsumexp


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"], k: Float[Tensor, "batch head key dim"]
) -> Float[Tensor, "batch head time"]:
    """Log-sum-exp of causal attention logits; the last query stands at the last key.

    The mass of a selection is exp(attend's log-sum-exp - this), per head and query.
    """
    logits = q @ k.mT * q.shape[-1] ** -0.5
    return logits.masked_fill(~causal(q.shape[-2], k.shape[-2], q.device), -math.inf).logsumexp(-1)


def attend_with_target(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch head key dim"],
    v: Float[Tensor, "batch head key dim"],
    selection: Selection,
    groups: int = 1,
) -> tuple[Float[Tensor, "batch head time dim"], TrueAttention]:
    """As `attend`, and the attention itself: what an indexer loss over this selection is to reach."""
    out, logsumexp = attend(q, k, v, selection)
    return out, TrueAttention(q.detach(), k.detach(), logsumexp, groups)


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """Mean over rows with keys of KL(p || softmax(I)), both normalised over the selection (None: all causal keys).

    Its gradient by I is (softmax(I) - p) / rows (DeepSeek-V3.2-Exp report, eqs. 3 and 4).

    Args:
        target: attention, whose head-summed probabilities are p after normalising; or p itself.
    """
    check_loss(features, target, selection)
    time = features.queries.shape[2]
    keys = features.keys.shape[2]
    index = score(features, slice(0, time), slice(0, keys))
    raw = target if isinstance(target, Tensor) else score(target, slice(0, time), slice(0, keys))
    scope = causal(time, keys, index.device) if selection is None else to_mask(selection, keys)
    scope = scope.expand_as(index)
    p = raw.detach().to(index.dtype).masked_fill(~scope, 0.0)
    mass = p.sum(-1, keepdim=True)
    valid = mass[..., 0] > 0
    p = p / mass.where(mass > 0, 1.0)
    index = index.masked_fill(~scope, -math.inf).masked_fill(~valid[..., None], 0.0)
    log_index = index.log_softmax(-1).masked_fill(~scope, 0.0)
    return (torch.special.xlogy(p, p) - p * log_index).sum() / valid.sum().clamp(min=1)


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """The losses of several indexers that learn one attention, each over all causal keys as if it were alone."""
    return [indexer_loss(each, target, None) for each in features]


def check_loss(features: IndexFeatures, target: TrueAttention | Tensor, selection: Selection | None) -> None:
    """Raise if the features score blocks (attention is defined per token), or the target is of another selection or
    shape."""
    if features.block > 1:
        raise ValueError(f"indexer_loss: features with block = {features.block}; only token-level features train.")
    mass = target.mass if isinstance(target, TrueAttention) else None
    if mass is not None and mass.selection is not selection:
        raise ValueError("indexer_loss: the target holds the mass of another selection; give the one attended to.")
    batch, groups, time = features.queries.shape[:3]
    wanted = batch, time, features.keys.shape[2]
    if isinstance(target, Tensor):
        given, given_groups = (target.shape[0], *target.shape[2:]), target.shape[1]
    else:
        given = target.keys.shape[0], target.queries.shape[2], target.keys.shape[2]
        given_groups = target.groups
    if given != wanted:
        raise ValueError(f"indexer_loss: the target has batch, time and keys {given}, the index features {wanted}.")
    if given_groups not in (1, groups):
        raise ValueError(f"indexer_loss: the target has {given_groups} groups: give 1, or {groups} as the features.")


def causal(time: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "time key"]:
    """Which keys lie at or before each query, the last query standing at the last key."""
    return torch.ones(time, keys, dtype=torch.bool, device=device).tril(keys - time)


def to_mask(selection: Selection, keys: int) -> Bool[Tensor, "batch group time key"]:
    """Selection as a dense mask."""
    positions = selection.positions.long()
    mask = torch.zeros(*positions.shape[:-1], keys + 1, dtype=torch.bool, device=positions.device)
    return mask.scatter(-1, torch.where(positions < 0, keys, positions), True)[..., :keys]


def from_mask(mask: Bool[Tensor, "batch group time key"], slots: int | None = None) -> Selection:
    """Dense mask as a selection of `slots` slots (as many as the fullest query needs, if not given)."""
    counts = mask.sum(-1)
    slots = max(int(counts.max()), 1) if slots is None else slots
    positions = torch.full((*mask.shape[:-1], slots), -1, dtype=torch.int32, device=mask.device)
    where = mask.nonzero(as_tuple=True)
    slot = (mask.cumsum(-1) - 1)[where]
    positions[(*where[:-1], slot)] = where[-1].int()
    return Selection(positions, counts.int())
