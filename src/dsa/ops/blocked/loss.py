"""The indexer loss by blocks of queries."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dsa.ops.blocked.tiles import blocks
from dsa.ops.contracts import Selection
from dsa.ops.reference import by_unit, causal, check_positions, checked_features, nonzero, row_weights
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.zones import first_forced


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`; the gradient is taken together with the loss, so nothing of a tile is kept."""
    features = checked_features(features, target, selection)
    if selection is not None:
        check_positions(selection.positions, target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2])
    return _IndexerLoss.apply(features.queries, features.keys, features.weights, features, target, selection)


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """As `reference.indexer_losses`."""
    return [indexer_loss(each, target, None) for each in features]


class _IndexerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, weights, features, target, selection):
        inputs = [x for x in (queries, keys, weights) if x is not None]
        wanted = any(ctx.needs_input_grad[:3])
        gradients = [torch.zeros_like(x) for x in inputs]
        count = target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2]
        total, counted = queries.new_zeros(()), queries.new_zeros(())
        for rows in blocks(queries.shape[2], queries.shape[0] * queries.shape[1] * features.width * count):
            columns, scope = scope_of(features, selection, rows, count)
            tokens = slice(columns.start * features.unit, columns.stop * features.unit)
            with torch.enable_grad(), saved_tensors_hooks(as_it_is, as_it_is):  # not whoever recomputes or offloads
                leaves = [x.detach().requires_grad_(wanted) for x in inputs]
                tile = features_from(features, leaves).scores(rows, columns, count - queries.shape[2])
            raw = target[:, :, rows, tokens] if isinstance(target, Tensor) else target.scores(rows, tokens)
            p = by_unit(raw.to(tile.dtype), features.unit).sum(-1).expand_as(tile).masked_fill(~scope, 0.0)
            mass = p.sum(-1, keepdim=True)
            p = p / mass.where(mass > 0, 1.0)
            index = tile.detach().masked_fill(~scope, -math.inf).masked_fill(mass == 0, 0.0)
            log_index = index.log_softmax(-1)
            counts = row_weights(target, mass[..., 0] > 0, rows)
            divergence = (torch.special.xlogy(p, p) - p * log_index.masked_fill(~scope, 0.0)).sum(-1)
            total += (divergence * counts).sum()
            counted += counts.sum()
            if wanted:
                slope = (log_index.exp() - p).masked_fill(~scope | (mass == 0), 0.0) * counts[..., None]
                for gradient, part in zip(gradients, torch.autograd.grad(tile, leaves, slope), strict=True):
                    gradient += part
        counted = nonzero(counted)
        ctx.save_for_backward(*(gradient / counted for gradient in gradients))
        ctx.weighted = weights is not None
        return total / counted

    @staticmethod
    def backward(ctx, grad):
        gradients = [grad * gradient for gradient in ctx.saved_tensors]
        return (*gradients, *([] if ctx.weighted else [None]), None, None, None)


def as_it_is(x: Tensor) -> Tensor:
    """What a tile saves for its backward pass, which comes at once."""
    return x


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
        columns, scope = chosen_keys(selection.positions[:, :, rows])
        low = columns.start
    if features.forced:
        fence = first_forced(features.forced, torch.arange(offset + rows.start, offset + rows.stop, device=device))
        scope = scope & (torch.arange(low, low + scope.shape[-1], device=device) < fence[:, None])
    scope = by_unit(torch.nn.functional.pad(scope, (low % unit, 0)), unit).all(-1)
    return slice(low // unit, low // unit + scope.shape[-1]), scope


def chosen_keys(positions: Int[Tensor, "b g rows slot"]) -> tuple[slice, Bool[Tensor, "b g rows key"]]:
    """The columns between the nearest and farthest selected key, and which of them are selected."""
    used = positions >= 0
    if not used.any():
        return slice(0, 1), torch.zeros(*positions.shape[:-1], 1, dtype=torch.bool, device=positions.device)
    start, stop = int(positions[used].min()), int(positions.max()) + 1
    mask = torch.zeros(*positions.shape[:-1], stop - start + 1, dtype=torch.bool, device=positions.device)
    mask.scatter_(-1, torch.where(used, positions - start, stop - start).long(), True)
    return slice(start, stop), mask[..., :-1]
