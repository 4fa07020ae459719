"""A search in two stages: blocks of keys by one score each, then the keys of the best blocks."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dsa.ops.cost import index_pair_flops
from dsa.ops.reference import best
from dsa.ops.scorers import IndexFeatures
from dsa.ops.zones import Zones, by_group, spans


class TwoStage(NamedTuple):
    """Scores of tokens as they are, but -inf outside the blocks that a query searches  (HISA, arXiv:2603.28458).

    These are the first block, the one that the query stands in, and the best of those between by the score of their
    mean key. What is left of a budget that they cannot fill goes to the earliest other keys.

    Args:
        tokens: features by token.
        means: the same queries and weights with one key for each whole block of `means.unit` tokens.
        blocks: how many are searched, from 2.
    """

    tokens: IndexFeatures
    means: IndexFeatures
    blocks: int

    @property
    def unit(self) -> int:
        return 1

    @property
    def groups(self) -> int:
        return self.tokens.groups

    @property
    def forced(self) -> Zones:
        return self.tokens.forced

    @property
    def width(self) -> int:
        return self.tokens.width

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.tokens.shape

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.tokens.tensors, self.means.keys

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        scores = self.tokens.scores(rows, columns)
        block = torch.arange(columns.start, columns.stop, device=scores.device) // self.means.unit
        return scores.masked_fill(~self.searched(rows, offset)[..., block], -math.inf)

    def searched(self, rows: slice, offset: int) -> Bool[Tensor, "batch group time block"]:
        """Which blocks the queries in `rows` search; the last one may be open."""
        means = self.means.scores(rows, slice(0, self.means.units))
        means = torch.nn.functional.pad(means, (0, 1))
        time = torch.arange(rows.start + offset, rows.stop + offset, device=means.device)
        own, block = (time // self.means.unit)[:, None], torch.arange(means.shape[-1], device=means.device)
        between = ((block > 0) & (block < own)).expand_as(means)
        wanted = torch.full(means.shape[:-1], self.blocks - 2, device=means.device)
        return best(means, between, wanted) | (block == 0) | (block == own)

    def of_group(self, group: int) -> "TwoStage":
        return self._replace(tokens=self.tokens.of_group(group), means=self.means.of_group(group))

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """A pair as of IndexFeatures: of a query and a block before its own, or a key that is shown and searched; at
        most so many, where a zone shows a part of the blocks between: the best of them may be those that it hides."""
        nothing, unit, time = torch.zeros(1, 1, length, dtype=torch.long), self.means.unit, torch.arange(length)
        edges = [(0 * time, time.clamp(max=unit - 1) + 1), ((time // unit * unit).clamp(min=unit), time + 1)]
        keys = 0
        for one in by_group(zones):
            shown = [span for span in spans(one, nothing, forced=self.forced) if not span.forced]
            always = sum((span.within(*edge) for span in shown for edge in edges), nothing)
            between = sum((span.count for span in shown), nothing) - always
            keys += int((always + between.clamp(max=(self.blocks - 2) * unit)).sum())
        keys *= self.groups if len(by_group(zones)) == 1 else 1
        blocks = self.groups * int((time // unit - 1).clamp(min=0).sum())
        return index_pair_flops(*self.tokens.queries.shape[3:]) * float(keys + blocks)
