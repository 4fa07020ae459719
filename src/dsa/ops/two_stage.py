"""A search in two stages: blocks of keys by one score each, then the keys of the best blocks."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dsa.ops.cost import index_pair_flops
from dsa.ops.reference import best
from dsa.ops.scorers import IndexFeatures
from dsa.ops.zones import Zones, by_group, spans, within


class TwoStage(NamedTuple):
    """Scores of tokens as they are, but -inf outside the blocks that a query searches  (HISA, arXiv:2603.28458).

    These are the first block, the one that the query stands in, and the best of those between by the score of their
    mean key, of those that hold a key to choose. What is left of a budget that they cannot fill goes to the earliest
    other keys.

    Args:
        tokens: features by token.
        means: the same queries and weights with one key for each whole block of `means.unit` tokens.
        blocks: how many are searched, from 2.
        library: zones; a block holds a key to choose if one of them lets the query choose it. None: every earlier key.
    """

    tokens: IndexFeatures
    means: IndexFeatures
    blocks: int
    library: tuple[Zones, ...] = ()

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
        between = self.between(self.library, time, len(block)).expand_as(means)
        wanted = torch.full(means.shape[:-1], self.blocks - 2, device=means.device)
        return best(means, between, wanted) | (block == 0) | (block == own)

    def between(
        self, library: tuple[Zones, ...], time: Int[Tensor, " time"], blocks: int
    ) -> Bool[Tensor, "time block"]:
        """Which blocks between the first and their own queries at `time` score, to search the best."""
        unit, block = self.means.unit, torch.arange(blocks, device=time.device)
        found = (block > 0) & (block < (time // unit)[:, None])
        if not library:
            return found
        held = torch.zeros_like(found)
        for zone in (zone for zones in library for zone in zones if not zone.forced):
            start, count = (x[:, None] for x in zone.span(time))
            held |= within(start, count, zone.step, block * unit, (block + 1) * unit) > 0
        return found & held

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
            always = sum(
                (within(span.start, span.count, span.step, *edge) for span in shown for edge in edges), nothing
            )
            between = sum((span.count for span in shown), nothing) - always
            keys += int((always + between.clamp(max=(self.blocks - 2) * unit)).sum())
        keys *= self.groups if len(by_group(zones)) == 1 else 1
        blocks = self.groups * int(self.between(by_group(zones), time, -(-length // unit)).sum())
        return index_pair_flops(*self.tokens.queries.shape[3:]) * float(keys + blocks)
