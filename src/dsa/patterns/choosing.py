"""What patterns share that choose among others, and learn to."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsa.checks import above_zero
from dsa.ops import Zones, by_group, own_dtypes
from dsa.patterns.base import Choice, Pattern
from dsa.patterns.named import check_named


class Choosing(Pattern, nn.Module):
    """A library of patterns, of which each query gets the preferred one; a variant says by what they are preferred.

    In training an entry is drawn from softmax(preference / temperature), by noise that the step seeds; in evaluation
    it is the largest. What is chosen is a hard choice; its gradient is that of its probability, straight through
    (Bengio et al. 2013, arXiv:1308.3432; one entry alone is attended to, as in Switch Transformers, arXiv:2101.03961).

    Args:
        patterns: the library, by names of your own; each is for all heads.
        default: the name of the one that is shown before anything is learned.
        hot, cold: temperature at the beginning and at the end of a stage; it falls by the same factor each step.

    Attributes:
        groups: equal groups of a layer's heads that choose apart.
        each_token: each token of a row has a draw of its own; else a row has one.
    """

    learns = True
    grouped_by = "pattern.groups"
    groups: int = 1
    each_token: bool = False

    def __init__(self, patterns: Mapping[str, Pattern], default: str, hot: float, cold: float) -> None:
        super().__init__()
        check_named(patterns)
        if default not in patterns:
            raise ValueError(f"pattern.default = {default}: give one of {', '.join(patterns)}.")
        self.names: tuple[str, ...] = (default, *sorted({*patterns} - {default}))
        self.entries = tuple(patterns[name] for name in self.names)
        self.hot = above_zero(hot, "pattern.hot")
        self.cold = above_zero(cold, "pattern.cold", most=self.hot)

    @abstractmethod
    def preferences(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch group time entry"]:
        """How much each entry is preferred, of detached hidden states in float32."""

    @property
    def library(self) -> tuple[Pattern, ...]:
        return self.entries

    def zones(self) -> tuple[Zones, ...]:
        return (by_group(self.entries[0].zones())[0],) * self.groups

    def own_budget(self, time: Int[Tensor, "*batch time"], forced: Zones = ()) -> Int[Tensor, "*batch group time"]:
        own = self.entries[0].own_budget(time, forced)
        return own.expand(*own.shape[:-2], self.groups, -1)

    def logits(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
        progress: float,
    ) -> Float[Tensor, "batch group time entry"]:
        """Preferences over the temperature. The language-model loss does not reach the hidden states through them."""
        temperature = self.hot * (self.cold / self.hot) ** progress
        with own_dtypes(x):
            return self.preferences(x.detach().float(), first.detach().float(), time) / temperature

    def choose(
        self,
        x: Float[Tensor, "batch time width"],
        first: Float[Tensor, "batch prefix width"],
        time: Int[Tensor, "batch time"],
        progress: float,
        step: int,
    ) -> Choice:
        logits = self.logits(x, first, time, progress)
        ranked = logits.detach()
        if step:  # Gumbel's noise: the largest of the sums is a draw from their softmax
            batch, groups, length, entries = ranked.shape
            noise = torch.empty(batch, groups, length if self.each_token else 1, entries, device=x.device)
            ranked = ranked - noise.exponential_().log()
        entry = ranked.argmax(-1)
        probability = logits.softmax(-1).gather(-1, entry[..., None])[..., 0]
        return Choice(entry, 1 + (probability - probability.detach()), self.names)
