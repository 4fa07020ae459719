"""Indexer losses by blocks of queries."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from dsa.ops.blocked.tiles import blocks
from dsa.ops.contracts import Selection
from dsa.ops.reference import by_unit, causal, checked_features, nonzero, row_weights
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.scores import check_positions
from dsa.ops.zones import first_forced


def indexer_loss(
    features: IndexFeatures, target: TrueAttention | Float[Tensor, "b g t s"], selection: Selection | None
) -> Float[Tensor, ""]:
    """As `reference.indexer_loss`; the gradient is taken together with the loss, so nothing of a tile is kept."""
    features = checked_features(features, target, selection)
    if selection is not None:
        check_positions(selection.positions, keys_of(target))
    (loss,) = IndexerLosses.apply([features], target, selection, *features[:3])
    return loss


def indexer_losses(
    features: Sequence[IndexFeatures], target: TrueAttention | Float[Tensor, "b g t s"]
) -> list[Float[Tensor, ""]]:
    """As `reference.indexer_losses`; of each block of queries the target is computed once for all."""
    features = [checked_features(each, target, None) for each in features]
    return list(IndexerLosses.apply(features, target, None, *(x for each in features for x in each[:3])))


class IndexerLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: Sequence[IndexFeatures], target: TrueAttention | Tensor, selection: Selection | None,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        wanted = [any(ctx.needs_input_grad[i : i + 3]) for i in range(3, 3 + len(tensors), 3)]
        learners = [Learner(*each) for each in zip(features, wanted, strict=True)]
        for block in query_blocks(features[0], target, selection):
            for learner in learners:
                learner.learn(block)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*(gradient for learner in learners for gradient in learner.mean_gradients()))
        return tuple(learner.total / nonzero(learner.counted) for learner in learners)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        factors = [factor for factor in upstream for _ in range(3)]
        grads = zip(ctx.saved_tensors, factors, strict=True)
        return (None, None, None, *(None if x is None or factor is None else factor * x for x, factor in grads))


class Block(NamedTuple):
    """What the queries in `rows` attend to among the keys in `tokens`."""

    rows: slice
    tokens: slice
    offset: int  # position of the first of all queries
    scope: Bool[Tensor, "..."]
    attention: Float[Tensor, "b g row token"]
    target: TrueAttention | Tensor


def query_blocks(
    features: IndexFeatures, target: TrueAttention | Tensor, selection: Selection | None
) -> Iterator[Block]:
    """The queries in blocks that depend on the target alone, or on its selection: not on who else learns it.

    Args:
        features: those that learn it; where there is no selection, any of several.
    """
    count, time, device = keys_of(target), features.queries.shape[2], features.queries.device
    width = target.shape[1] if isinstance(target, Tensor) else target.queries.shape[1]
    per_query = len(features.queries) * width * count
    if selection is not None:
        per_query = max(per_query, per_query_of(features, count))
    for rows in blocks(time, per_query):
        if selection is None:
            tokens = slice(0, count - time + rows.stop)
            scope = causal(rows.stop - rows.start, tokens.stop, device)[None, None]
        else:
            tokens, scope = chosen_keys(selection.positions[:, :, rows], features.unit, count - time + rows.stop)
        attention = target[:, :, rows, tokens] if isinstance(target, Tensor) else target.scores(rows, tokens)
        yield Block(rows, tokens, count - time, scope, attention, target)


class Learner:
    """Sums over blocks of one indexer's divergences, and of their gradients if they are wanted."""

    def __init__(self, features: IndexFeatures, wanted: bool) -> None:
        self.features, self.wanted = features, wanted
        self.gradients = [torch.zeros_like(x) for x in features.tensors] if wanted else []
        self.total, self.counted = features.queries.new_zeros(()), features.queries.new_zeros(())

    def learn(self, block: Block) -> None:
        """Add a block of queries."""
        unit, first = self.features.unit, block.tokens.start
        scope = self.in_units(block)
        columns = slice(first // unit, first // unit + scope.shape[-1])
        attention = by_unit(block.attention.to(self.features.queries.dtype), unit).sum(-1)
        per_query = per_query_of(self.features, keys_of(block.target))
        for part in blocks(block.rows.stop - block.rows.start, per_query):
            rows = slice(block.rows.start + part.start, block.rows.start + part.stop)
            self.add(rows, columns, scope[:, :, part], attention[:, :, part], block)

    def in_units(self, block: Block) -> Bool[Tensor, "..."]:
        """The units in scope of each query: as `reference.scope_of`."""
        scope, device = block.scope, self.features.queries.device
        if self.features.forced:
            first, last = block.rows.start + block.offset, block.rows.stop + block.offset
            fence = first_forced(self.features.forced, torch.arange(first, last, device=device))
            scope = scope & (torch.arange(block.tokens.start, block.tokens.stop, device=device) < fence[:, None])
        return by_unit(scope, self.features.unit).all(-1)

    def add(
        self, rows: slice, columns: slice, scope: Bool[Tensor, "..."], attention: Float[Tensor, "b g row unit"],
        block: Block,
    ) -> None:  # fmt: skip
        """Add a tile: the divergence from the attention to these units, and its gradients."""
        with torch.enable_grad(), saved_tensors_hooks(as_it_is, as_it_is):  # not whoever recomputes or offloads
            leaves = [x.detach().requires_grad_(self.wanted) for x in self.features.tensors]
            queries, keys, *weights = leaves
            own = self.features._replace(queries=queries, keys=keys, weights=weights[0] if weights else None)
            tile = own.scores(rows, columns, block.offset)
        p = attention.expand_as(tile).masked_fill(~scope, 0.0)
        mass = p.sum(-1, keepdim=True)
        p = p / mass.where(mass > 0, 1.0)
        index = tile.detach().masked_fill(~scope, -math.inf).masked_fill(mass == 0, 0.0)
        log_index = index.log_softmax(-1)
        counts = row_weights(block.target, mass[..., 0] > 0, rows)
        divergence = (torch.special.xlogy(p, p) - p * log_index.masked_fill(~scope, 0.0)).sum(-1)
        self.total += (divergence * counts).sum()
        self.counted += counts.sum()
        if self.wanted:
            slope = (log_index.exp() - p).masked_fill(~scope | (mass == 0), 0.0) * counts[..., None]
            for gradient, part in zip(self.gradients, torch.autograd.grad(tile, leaves, slope), strict=True):
                gradient += part

    def mean_gradients(self) -> list[Tensor | None]:
        """By queries, keys and weights; None where there are none, or are not wanted."""
        means = [x / nonzero(self.counted) for x in self.gradients]
        return [*means, *[None] * (3 - len(means))]


def keys_of(target: TrueAttention | Tensor) -> int:
    """How many keys a target is over."""
    return target.shape[-1] if isinstance(target, Tensor) else target.keys.shape[2]


def per_query_of(features: IndexFeatures, keys: int) -> int:
    """Elements of a tile for each query."""
    return features.queries.shape[0] * features.queries.shape[1] * features.width * keys


def as_it_is(x: Tensor) -> Tensor:
    """What a tile saves for its backward pass, which comes at once."""
    return x


def chosen_keys(
    positions: Int[Tensor, "b g rows slot"], unit: int, keys: int
) -> tuple[slice, Bool[Tensor, "b g rows key"]]:
    """From the unit of the farthest to the nearest selected key, and which of these keys are selected; of another
    device than the CPU, which would have to be waited for, all of so many keys."""
    used = positions >= 0
    start, stop = 0, keys
    if positions.is_cpu:
        if not used.any():
            return slice(0, 1), torch.zeros(*positions.shape[:-1], 1, dtype=torch.bool)
        start, stop = int(positions[used].min()) // unit * unit, int(positions.max()) + 1
    mask = torch.zeros(*positions.shape[:-1], stop - start + 1, dtype=torch.bool, device=positions.device)
    places = torch.where(used, positions - start, stop - start).clamp(max=stop - start)  # one beyond is told elsewhere
    mask.scatter_(-1, places.long(), True)
    return slice(start, stop), mask[..., :-1]
