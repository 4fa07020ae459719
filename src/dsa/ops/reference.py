"""The definition of every op: dense, slow, plainly right, in any float dtype. Other backends are tested against it."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.contracts import Call, ScoredRows, Scorer, Selection, Trim
from dsa.ops.features import lightning_features as lightning_features
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import (
    capped,
    check_positions,
    check_scores,
    check_selection,
    finite,
    largest,
    repeated,
    scale_of,
    slots_for,
)
from dsa.ops.with_target import with_target
from dsa.ops.zones import Span, Zones, first_forced, spans

name, selected_only = "reference", False


def multiplies(dtype: torch.dtype) -> bool:
    """All in float32, which is exact for integers."""
    return False


def covers(call: Call) -> str | None:
    """Everything."""
    return None


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    slots: int | None = None,
) -> Selection:
    """The keys each query keeps: forced ones first, then each scored zone's best; ties go to the lower position.

    Args:
        limit: most keys a query may keep, forced ones included; its groups are 1 or those of the selection, and so
            are the scorer's.
        trim: how many of the kept keys stay, counted with the forced ones; drops the lowest scores over all zones.
            A unit of which a token stays, stays whole.
        offset: position of the first query; keys are the positions 0 ... offset + time - 1.
        first: first real key of each left-padded row.
        slots: that the selection is to have, where it is known that no limit is larger; None: as few as will do, for
            which the device is asked.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number. Without a trim a backend need not
            score keys of which a query may keep none.
        ValueError: a query keeps more keys than it has slots.
    """
    batch, own, length = limit.shape
    keys, groups, unit = offset + length, max(scorer.groups, own), scorer.unit
    scores = scorer.scores(slice(0, length), slice(0, keys // unit), offset, limit.device)
    scores = scores.expand(batch, groups, -1, -1)
    kept = torch.zeros(batch, groups, length, keys, dtype=torch.bool, device=limit.device)
    scored = torch.zeros_like(kept)
    seen = torch.zeros_like(kept)
    for span in spans(zones, limit, offset, first, unit, scorer.forced):
        inside = members(span, keys // span.unit)
        if span.forced:
            stop = span.start + (span.count - span.keep) * span.step
            chosen = inside & (torch.arange(keys, device=limit.device) >= stop[..., None])
            seen |= inside & (unit == 1)
        else:
            check_scores(scores, inside.expand_as(scores))
            chosen = best(scores, inside.expand_as(scores), span.keep.expand(-1, groups, -1))
            chosen, inside = (per_token(x, unit, keys) for x in (chosen, inside))
            scored |= chosen
            seen |= inside
        kept |= chosen
    if trim is not None:
        kept = trimmed(trim, per_token(scores, unit, keys) - math.log(unit), kept, scored, seen, unit)
    return from_mask(kept, slots)


def per_token(x: Tensor, unit: int, keys: int) -> Tensor:
    """What holds of units, of their tokens; what follows the last whole unit is 0."""
    return x if unit == 1 else torch.nn.functional.pad(x.repeat_interleave(unit, -1), (0, keys - x.shape[-1] * unit))


def members(span: Span, units: int) -> Bool[Tensor, "batch 1 time unit"]:
    """Which units lie in a span."""
    unit = torch.arange(units, device=span.start.device)
    distance = unit - span.start[..., None]
    return (distance >= 0) & (distance % span.step == 0) & (distance < (span.count * span.step)[..., None])


def best(
    scores: Float[Tensor, "*row unit"], legal: Bool[Tensor, "*row unit"], keep: Int[Tensor, "*row"]
) -> Bool[Tensor, "*row unit"]:
    """The `keep` legal units of highest score, ties to the lower position."""
    smallest = torch.finfo(scores.dtype).min
    ranked = torch.where(legal, scores.clamp(min=smallest), -math.inf).sort(dim=-1, descending=True, stable=True)
    first = torch.arange(scores.shape[-1], device=scores.device) < keep[..., None]
    return torch.zeros_like(legal).scatter(-1, ranked.indices, first) & legal


def trimmed(
    trim: Trim, scores: Tensor, kept: Tensor, scored: Tensor, seen: Tensor, unit: int
) -> Bool[Tensor, "b g t s"]:
    """Keep as many of the kept keys as `trim` says, in whole units, dropping the lowest scored ones."""
    forced = kept & ~scored
    row = torch.where(seen, scores, -math.inf)
    logsumexp = row.logsumexp(-1)
    probability = (row - logsumexp[..., None]).exp().nan_to_num(0.0)
    entropy = -(probability * torch.where(probability > 0, row - logsumexp[..., None], 0.0)).sum(-1)
    slots = max(largest(scored.sum(-1)), 1)
    rows = ScoredRows(
        scores=torch.where(scored, scores, -math.inf).sort(dim=-1, descending=True).values[..., :slots],
        forced=forced.sum(-1),
        forced_logsumexp=torch.where(forced & seen, scores, -math.inf).logsumexp(-1),
        logsumexp=logsumexp,
        entropy=entropy,
    )
    stay = -(-(trim(rows) - rows.forced) // unit) * unit
    return forced | best(scores, scored, stay.clamp(min=0))


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
    """Softmax attention of each query over its selected keys alone.

    Args:
        k, v: kv_head divides head, and heads map to kv_heads contiguously (grouped-query attention).
        sink: one more logit per head that takes probability and gives no value.
        scale: of the logits; None = dim^-1/2.
        cap: of the scaled logits: cap * tanh(logits / cap); None = none.

    Returns:
        output, and the log-sum-exp of the logits (a measurement: it carries no gradient). A query without keys
        gets 0 and -inf (or the sink). One of which query, a selected key or its value holds a number that is not
        finite gets NaN; what it did not select may hold anything.

    Raises:
        IndexError: the selection holds positions outside the keys.
    """
    k, v = repeated(k, q.shape[1]), repeated(v, q.shape[1])
    chosen = repeated(to_mask(selection, k.shape[2]), q.shape[1])
    whole = [x.isfinite().all(-1) for x in (q, k, v)]
    broken = ~whole[0][..., None] | ~(whole[1] & whole[2])[..., None, :]
    logits = capped(finite(q) @ finite(k).mT * scale_of(q, scale), cap)
    logits = logits.masked_fill(broken, math.nan).masked_fill(~chosen, -math.inf)
    if sink is not None:
        logits = torch.cat([logits, sink[None, :, None, None].expand(*logits.shape[:-1], 1)], -1)
    logsumexp = logits.detach().logsumexp(-1)
    # A row of -inf alone has no softmax: give it finite logits, then no probability.
    empty = logsumexp == -math.inf
    probability = logits.masked_fill(empty[..., None], 0.0).softmax(-1).masked_fill(empty[..., None], 0.0)
    return probability[..., : k.shape[2]].masked_fill(~chosen, 0.0) @ finite(v), logsumexp


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """Log-sum-exp of causal attention logits and the sink, if there is one; the last query stands at the last key.

    The mass of a selection is exp(attend's log-sum-exp - this), per head and query: with a sink in both, the share of
    the dense probability on the selected keys and the sink.
    """
    logits = capped(q @ repeated(k, q.shape[1]).mT * scale_of(q, scale), cap)
    logsumexp = logits.masked_fill(~causal(q.shape[2], k.shape[2], q.device), -math.inf).logsumexp(-1)
    return logsumexp if sink is None else torch.logaddexp(logsumexp, sink[:, None])


attend_with_target = with_target(attend)


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """Mean over rows with mass of KL(p || softmax(I)), both normalised over the units in scope.

    A row is a query of one group; features of one group serve all groups of target and selection.
    In scope of a query are the whole units of `features.unit` tokens all of which it keeps (selection None: all of
    which lie at or before it), unless `features.forced` keeps one of them anyway: the units that can be chosen at t.
    p is the attention summed over heads and over the tokens of each unit. The gradient by I is (softmax(I) - p) / rows
    (DeepSeek-V3.2-Exp report, eqs. 3 and 4). The last query stands at the last key. With an emphasis the mean is
    weighted by its rows (0 where none counts), and p is the attention times its factors, by head and token.

    Args:
        target: attention, whose head-summed probabilities are p after normalising; or p itself, by token.
    """
    features = checked_features(features, target, selection)
    time, unit = features.queries.shape[2], features.unit
    keys = target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2]
    index = features.scores(slice(0, time), slice(0, keys // unit), keys - time)
    raw = target if isinstance(target, Tensor) else target.scores(slice(0, time), slice(0, keys))
    scope = scope_of(features, selection, time, keys).expand_as(index)
    p = by_unit(raw.detach().to(index.dtype), unit).sum(-1).expand_as(index).masked_fill(~scope, 0.0)
    mass = p.sum(-1, keepdim=True)
    valid = mass[..., 0] > 0
    p = p / mass.where(mass > 0, 1.0)
    index = index.masked_fill(~scope, -math.inf).masked_fill(~valid[..., None], 0.0)
    log_index = index.log_softmax(-1).masked_fill(~scope, 0.0)
    counts = row_weights(target, valid).to(p.dtype)
    divergence = (torch.special.xlogy(p, p) - p * log_index).sum(-1)
    return (divergence * counts).sum() / nonzero(counts.sum())


def row_weights(target: TrueAttention | Tensor, valid: Bool[Tensor, "b g rows"], rows: slice = slice(None)) -> Tensor:
    """How much each row counts: not at all without mass, else as the target's emphasis says.

    Args:
        rows: which queries of the target these are.
    """
    own = None if isinstance(target, Tensor) or target.emphasis is None else target.emphasis.rows
    return valid.float() if own is None else own[:, None, rows] * valid


def nonzero(total: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """What a sum is divided by: where nothing counts, by 1."""
    return total.where(total > 0, 1.0)


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """The losses of several indexers that learn one attention, each over all causal keys as if it were alone."""
    return [indexer_loss(each, target, None) for each in features]


def scope_of(
    features: IndexFeatures, selection: Selection | None, time: int, keys: int
) -> Bool[Tensor, "batch group time unit"]:
    """The units of which each query keeps (or sees) every token, and of which none is forced."""
    device = features.queries.device
    scope = causal(time, keys, device)[None, None] if selection is None else to_mask(selection, keys)
    fence = first_forced(features.forced, torch.arange(keys - time, keys, device=device))
    if features.forced:
        scope = scope & (torch.arange(keys, device=device) < fence[:, None])
    return by_unit(scope, features.unit).all(-1)


def by_unit(x: Tensor, unit: int) -> Tensor:
    """The last axis as whole units of tokens."""
    whole = x.shape[-1] // unit
    return x[..., : whole * unit].unflatten(-1, (whole, unit))


def checked_features(
    features: IndexFeatures, target: TrueAttention | Tensor, selection: Selection | None
) -> IndexFeatures:
    """The features, once for each group of target and selection where one scorer serves them all.

    Raises:
        ValueError: the target is of another selection or shape, or the groups do not fit.
    """
    mass = None if isinstance(target, Tensor) else target.mass
    if mass is not None and mass.selection is not selection:
        raise ValueError("indexer_loss: the target holds the mass of another selection; give the one attended to.")
    batch, _, time = features.queries.shape[:3]
    if isinstance(target, Tensor):
        given = target.shape[0], *target.shape[2:]
    else:
        given = target.keys.shape[0], target.queries.shape[2], target.keys.shape[2]
        if target.logsumexp.shape != target.queries.shape[:3]:
            raise ValueError(
                f"indexer_loss: the target's log-sum-exp has shape {tuple(target.logsumexp.shape)}, its queries "
                f"{tuple(target.queries.shape)}; give one for each head and query."
            )
    units = f" units of {features.unit}" if features.unit > 1 else ""
    if (*given[:2], given[2] // features.unit) != (batch, time, features.units):
        raise ValueError(
            f"indexer_loss: the target has batch, time and keys {given}, "
            f"the index features {(batch, time, features.units)}{units}."
        )
    if selection is not None:
        check_selection(selection, batch, time, "indexer_loss")
    groups = target.shape[1] if isinstance(target, Tensor) else target.groups
    chosen = 1 if selection is None else selection.positions.shape[1]
    many = max(features.groups, groups, chosen)
    if {features.groups, groups, chosen} - {1, many}:
        raise ValueError(
            f"indexer_loss: features of {features.groups} groups, a target of {groups}, a selection of {chosen}: give "
            "one for all groups, or the same number."
        )
    weights = None if features.weights is None else features.weights.expand(-1, many, -1, -1)
    return features._replace(queries=features.queries.expand(-1, many, -1, -1, -1), weights=weights)


def causal(time: int, keys: int, device: torch.device | None = None) -> Bool[Tensor, "time key"]:
    """Which keys lie at or before each query, the last query standing at the last key."""
    return torch.ones(time, keys, dtype=torch.bool, device=device).tril(keys - time)


def to_mask(selection: Selection, keys: int) -> Bool[Tensor, "batch group time key"]:
    """Selection as a dense mask.

    Raises:
        IndexError: it holds positions outside the keys.
    """
    check_positions(selection.positions, keys)
    return dense_mask(selection.positions, keys)


def dense_mask(positions: Int[Tensor, "*rest slot"], keys: int) -> Bool[Tensor, "*rest key"]:
    """Positions as a mask; those of unused slots are -1, and one beyond the keys is told by `check_positions`."""
    positions = positions.long()
    mask = torch.zeros(*positions.shape[:-1], keys + 1, dtype=torch.bool, device=positions.device)
    return mask.scatter(-1, torch.where(positions < 0, keys, positions).clamp(max=keys), True)[..., :keys]


def from_mask(mask: Bool[Tensor, "batch group time key"], slots: int | None = None) -> Selection:
    """Dense mask as a selection of `slots` slots (as many as the fullest query needs, if not given)."""
    counts = mask.sum(-1)
    slots = slots_for(counts, slots)
    positions = torch.full((*mask.shape[:-1], slots), -1, dtype=torch.int32, device=mask.device)
    where = mask.nonzero(as_tuple=True)
    slot = (mask.cumsum(-1) - 1)[where]
    positions[(*where[:-1], slot)] = where[-1].int()
    return Selection(positions, counts.int())
