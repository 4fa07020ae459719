"""Attention over the keys that indexer, pattern, selector and precision choose together."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.profiler import record_function

from dsa import ops
from dsa.indexers import Indexer
from dsa.ops import IndexFeatures, Rotation, Selection, TrueAttention, Zones
from dsa.patterns import Pattern
from dsa.precision import Precision
from dsa.selectors import Selector, SelectorContext


class Observation(NamedTuple):
    """What one layer did in one forward pass, for those who measure; no gradient."""

    layer: int
    queries: Float[Tensor, "batch head time dim"]
    keys: Float[Tensor, "batch head time dim"]
    logsumexp: Float[Tensor, "batch head time"]  # over the selection
    selection: Selection | None  # None: every causal key
    features: IndexFeatures | None  # before rounding
    cast: IndexFeatures | None  # after
    zones: Zones | tuple[Zones, ...]


@dataclass(frozen=True)
class Pass:
    """How a forward pass attends. The default is the finished sparse model.

    Args:
        sparse: attend to the selection; False: to every earlier key.
        teach: compute the indexers' loss, over the selection or, with dense attention, over all earlier keys.
        progress: of sparse training, 0 to 1.
        step: of training, from 1; 0 in every evaluation.
        observe: called by each sparse layer with what it did.
    """

    sparse: bool = True
    teach: bool = False
    progress: float = 1.0
    step: int = 0
    observe: Callable[[Observation], None] | None = None


class SparseAttention(nn.Module):
    """Multi-head attention with rotary positions, each query over its selected keys.

    Args:
        d_model: width of the hidden states.
        heads: attention heads; each has d_model / heads dims.
        indexer: scores keys; None if the selector is a control, or the attention is dense.
        pattern: which keys a query may see.
        selector: how many keys a query keeps.
        precision: number format of the index scores.
        layer: index of this layer.
        backend: which ops backend serves: auto, reference, blocked or cpu.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        indexer: Indexer | None,
        pattern: Pattern,
        selector: Selector,
        precision: Precision,
        layer: int,
        backend: str,
    ) -> None:
        super().__init__()
        self.heads, self.layer, self.backend = heads, layer, ops.checked_backend(backend)
        self.to_qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.to_out = nn.Linear(d_model, d_model, bias=False)
        self.indexer, self.pattern, self.selector, self.precision = indexer, pattern, selector, precision
        self.positions: tuple[Any, tuple[Tensor, Tensor, Tensor]] | None = None  # of the last pass

    def forward(
        self, x: Float[Tensor, "batch time model"], rotary: Rotation, how: Pass
    ) -> tuple[Float[Tensor, "batch time model"], Float[Tensor, ""]]:
        """Attention output, and the indexer's loss (0 unless the pass teaches)."""
        q, k, v = rearrange(self.to_qkv(x), "b t (n h d) -> n b h t d", n=3, h=self.heads)
        q, k = rotary(q), rotary(k)
        if how.sparse:
            out, loss = self.attend_sparse(x, q, k, v, rotary, how)
        else:
            with named("attend"):
                out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            loss = self.warm_up(x, q.detach(), k.detach(), rotary) if how.teach else out.new_zeros(())
        return self.to_out(rearrange(out, "b h t d -> b t (h d)")), loss

    def attend_sparse(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rotary: Rotation, how: Pass
    ) -> tuple[Tensor, Tensor]:
        features, cast = self.index(x, rotary)
        context = self.context(x, how)
        with named("select"):
            selection = self.select(cast, q.detach(), k.detach(), context)
        groups = 1 if selection is None else selection.positions.shape[1]
        groups = groups if cast is None else max(groups, cast.groups)
        wants_target = (how.teach and cast is not None) or how.observe is not None
        with named("attend"):
            if selection is None:
                out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            elif wants_target:
                out, target = ops.attend_with_target(q, k, v, selection, groups, backend=self.backend)
            else:
                out, _ = ops.attend(q, k, v, selection, backend=self.backend)
        if selection is None and wants_target:
            target = self.dense_attention(q, k, groups)
        if how.teach and cast is not None:
            loss = self.teach(cast, target, selection)
        else:
            loss = out.new_zeros((), dtype=torch.float32)
        if self.training and selection is not None:
            self.selector.observe(selection, context)
        if how.observe is not None:
            seen = Observation(self.layer, q, k, target.logsumexp, selection, features, cast, self.pattern.zones())
            how.observe(seen)
        return out, loss

    def warm_up(self, x: Tensor, q: Tensor, k: Tensor, rotary: Rotation) -> Tensor:
        """The indexer's loss against dense attention, over every earlier key."""
        _, cast = self.index(x, rotary)
        if cast is None:
            return q.new_zeros((), dtype=torch.float32)
        if self.training and self.selector.calibrates:
            context = self.context(x, Pass())
            selection = self.select(cast, q, k, context)
            if selection is not None:
                self.selector.observe(selection, context)
        return self.teach(cast, self.dense_attention(q, k, cast.queries.shape[1]), None)

    def dense_attention(self, q: Tensor, k: Tensor, groups: int = 1) -> TrueAttention:
        """The attention of every query over every earlier key."""
        return TrueAttention(q.detach(), k.detach(), ops.dense_logsumexp(q, k, backend=self.backend), groups)

    def index(self, x: Tensor, rotary: Rotation) -> tuple[IndexFeatures | None, IndexFeatures | None]:
        """Index features before and after rounding to the precision's format."""
        if self.indexer is None:
            return None, None
        with named("indexer"):
            features = self.indexer(x, rotary)
            return features, self.precision.cast(features)

    def context(self, x: Float[Tensor, "batch time model"], how: Pass) -> SelectorContext:
        batch, length, _ = x.shape
        return SelectorContext(*self.by_position(batch, length, x.device), how.progress, self.layer, how.step)

    def by_position(
        self, batch: int, length: int, device: torch.device
    ) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch group time"], Int[Tensor, "batch group time"]]:
        """Positions, the keys that each sees, and how many of them the pattern keeps: mostly those of the last pass."""
        forced = () if self.indexer is None else self.indexer.forced
        of = (self.pattern.zones(), self.pattern.budget, forced, batch, length, device)
        if self.positions is None or self.positions[0] != of:
            with torch.inference_mode(False):  # a later pass may want gradients
                time = torch.arange(length, device=device)
                seen, own = self.pattern.visible(time, forced), self.pattern.own_budget(time, forced)
                self.positions = of, (time.expand(batch, -1), seen.expand(batch, -1, -1), own.expand(batch, -1, -1))
        return self.positions[1]

    @torch.no_grad()
    def select(self, cast: IndexFeatures | None, q: Tensor, k: Tensor, context: SelectorContext) -> Selection | None:
        """The selection, or None if every query keeps every earlier key."""
        limit = self.selector.limit(context)
        trim = self.selector.trim if self.selector.trims else None
        if trim is None and keeps_every_key(limit, context):
            return None

        scorer = self.selector.scorer(cast, lambda: self.dense_attention(q, k), context)
        return ops.select(scorer, self.pattern.zones(), limit, trim, backend=self.backend)

    def teach(self, cast: IndexFeatures, target: TrueAttention, selection: Selection | None) -> Tensor:
        with named("indexer_loss"):
            return ops.indexer_loss(cast, target, selection, backend=self.backend)


def keeps_every_key(limit: Int[Tensor, "batch group time"], context: SelectorContext) -> bool:
    """Whether every query keeps every earlier key. The last one has most: mostly its number alone answers."""
    if int(limit[0, 0, -1]) < limit.shape[-1]:
        return False
    return bool((torch.minimum(limit, context.visible) > context.time[:, None]).all())


def named(part: str) -> AbstractContextManager[object]:
    """Shows a part of the attention to the profiler, if one runs: the name alone costs as much as a small op."""
    return record_function(f"dsa/{part}") if torch.autograd._profiler_enabled() else nullcontext()
