"""Budgets that differ from query to query, brought to a common mean so that they can be compared with topk."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.checks import at_least, positive
from dsa.ops import ScoredRows, Selection
from dsa.selectors.base import Selector, SelectorContext

RATE = 0.2  # share of the remaining (log) distance to the target that one training step closes
LIMIT = 8.0  # of the log gain, so that a target out of reach does not wind it up


class Adaptive(Selector):
    """A budget between bounds, scaled by a constant that training moves until the mean budget meets its target.

    Args:
        min_k: keys kept at least [tokens].
        max_k: keys kept at most [tokens].
        target_mean: mean keys per query [tokens]; "pattern" = the mean of the pattern's own budget, None = no target.
    """

    log_gain: Tensor
    seen: Tensor  # keys kept since the last calibration, and keys that the target asks for

    def __init__(self, min_k: int, max_k: int, target_mean: float | Literal["pattern"] | None) -> None:
        super().__init__()
        self.min_k = positive(min_k, "selector.min_k")
        self.max_k = at_least(max_k, min_k, "selector.max_k", "selector.min_k is the lower bound")
        if isinstance(target_mean, int | float) and not min_k <= target_mean <= max_k:
            raise ValueError(
                f"selector.target_mean = {target_mean}: it must lie between selector.min_k = {min_k} and "
                f"selector.max_k = {max_k}."
            )
        if isinstance(target_mean, str) and target_mean != "pattern":
            raise ValueError(f"selector.target_mean = {target_mean}: give a number of keys, pattern or null.")
        self.target_mean = target_mean
        self.register_buffer("log_gain", torch.zeros(()))
        self.seen = torch.zeros(2, dtype=torch.float64)  # no buffer: each process of a distributed run has its own

    @property
    def calibrates(self) -> bool:
        return self.target_mean is not None

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.visible.clamp(max=self.max_k)

    def bounded(self, k: Tensor) -> Tensor:
        """A real-valued budget as a number of keys within the bounds."""
        return k.clamp(self.min_k, self.max_k).round().long()

    def target(self, own: Int[Tensor, "..."]) -> float | None:
        """The mean budget to meet, where the pattern's own budgets are `own` [tokens]."""
        wanted = self.wanted(own)
        return None if wanted is None else float(wanted)

    def wanted(self, own: Int[Tensor, "..."]) -> Tensor | float | None:
        """The same, on the device where it has to be found."""
        return own.float().mean() if isinstance(self.target_mean, str) else self.target_mean

    def observe(self, selection: Selection, context: SelectorContext) -> None:
        """Remember what was kept; a part seen twice, as under activation checkpointing, leaves the mean as it is."""
        wanted = self.wanted(context.own)
        if wanted is not None:
            kept = selection.counts.sum().double()
            asked = torch.full_like(kept, selection.counts.numel()) * wanted
            self.seen = self.seen.to(kept.device) + torch.stack([kept, asked])

    def calibrate(self, total: Callable[[Tensor], Tensor]) -> Tensor:
        kept, wanted = total(self.seen.clone()).clamp(min=1e-9)
        self.seen.zero_()
        seen = kept > 1e-6
        self.log_gain += RATE * (wanted.log() - kept.log()).where(seen, 0.0)
        self.log_gain.clamp_(-LIMIT, LIMIT)
        return (kept / wanted - 1).abs().where(seen, 0.0)


class AdaptiveEntropy(Adaptive):
    """As many keys as the entropy of softmax(I) suggests: exp(H) is an effective number of keys."""

    def trim(self, rows: ScoredRows) -> Int[Tensor, "batch group time"]:
        return self.bounded((rows.entropy + self.log_gain).exp())


class AdaptivePosition(Adaptive):
    """A budget that shrinks with position by a constant factor per token, from max_k at 0 to min_k at seq_len.

    Args:
        seq_len: length at which min_k is reached [tokens].
    """

    def __init__(self, min_k: int, max_k: int, target_mean: float | Literal["pattern"] | None, seq_len: int) -> None:
        super().__init__(min_k, max_k, target_mean)
        self.seq_len = positive(seq_len, "seq_len")

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        slope = math.log(self.min_k / self.max_k) / self.seq_len
        k = self.max_k * (context.time[:, None].clamp(min=0).to(self.log_gain) * slope + self.log_gain).exp()
        return self.bounded(k).minimum(context.visible)

    def at_most(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return super().limit(context)


class AdaptiveDynamic(Adaptive):
    """The smallest budget whose share of softmax(I) reaches p; a target mean moves p.

    Args:
        p: the share, above 0 and below 1.
    """

    def __init__(self, min_k: int, max_k: int, target_mean: float | Literal["pattern"] | None, p: float) -> None:
        super().__init__(min_k, max_k, target_mean)
        if not 0 < p < 1:
            raise ValueError(f"selector.p = {p}: give a share above 0 and below 1.")
        self.logit = math.log(p / (1 - p))

    def trim(self, rows: ScoredRows) -> Int[Tensor, "batch group time"]:
        p = (self.logit + self.log_gain).sigmoid()
        share = (rows.scores - rows.logsumexp[..., None]).exp().cumsum(-1)
        share = share + (rows.forced_logsumexp - rows.logsumexp).exp()[..., None]
        reached = share >= p
        enough = torch.where(reached.any(-1), reached.int().argmax(-1) + 1, reached.shape[-1])
        forced_alone = (rows.forced_logsumexp - rows.logsumexp).exp() >= p
        return self.bounded((rows.forced + torch.where(forced_alone, 0, enough)).float())
