"""Index features that differ from row to row, and within a row from one query on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.contracts import Selection
from dsa.ops.merge import equally_wide
from dsa.ops.scorers import IndexFeatures, TrueAttention
from dsa.ops.zones import Zones

Target = TrueAttention | Float[Tensor, "batch group time key"]


class Picked(NamedTuple):
    """Which of several indexers each row got.

    Args:
        entry: number of the indexer.
        regret: what the picker expects each to lose against the default [nats].
        names: of the indexers.
    """

    entry: Int[Tensor, "batch"]
    regret: Float[Tensor, "batch member"]
    names: tuple[str, ...]

    def shares(self) -> dict[str, float]:
        """The share of rows that got each."""
        counts = self.entry.bincount(minlength=len(self.names)).tolist()
        return {name: count / len(self.entry) for name, count in zip(self.names, counts, strict=True)}


class Stretch(NamedTuple):
    """Features of some rows of a batch, for queries in a row.

    Args:
        features: of these rows and queries alone, and of every key up to the last of them.
        rows: numbers of the rows.
        first: number of the first query in the pass; last: one past the last.
    """

    features: IndexFeatures
    rows: Int[Tensor, "*row"]
    first: int
    last: int


class Mixed(NamedTuple):
    """Scores by stretches that cover each query of each row once; tokens are chosen, by one group.

    Args:
        batch, time: rows, and queries of each; before: tokens before the first query.
        picked: by which indexers the rows are scored; None where that is not decided yet.
    """

    stretches: tuple[Stretch, ...]
    batch: int
    time: int
    before: int = 0
    picked: Picked | None = None

    @property
    def each(self) -> tuple[IndexFeatures, ...]:
        return tuple(stretch.features for stretch in self.stretches)

    def mapped(self, to: Callable[[IndexFeatures], IndexFeatures]) -> "Mixed":
        """The same with other features of each stretch."""
        return self._replace(stretches=tuple(one._replace(features=to(one.features)) for one in self.stretches))

    @property
    def unit(self) -> int:
        return 1

    @property
    def groups(self) -> int:
        return 1

    @property
    def forced(self) -> Zones:
        return ()

    @property
    def width(self) -> int:
        return max(one.width for one in self.each)

    @property
    def units(self) -> int:
        return self.before + self.time

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.batch, self.time, self.units

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(x for one in self.each for x in one.tensors)

    def scores(
        self, rows: slice, columns: slice, offset: int = 0, device: torch.device | None = None
    ) -> Float[Tensor, "batch group time unit"]:
        """As `Scorer.scores`; later keys than a stretch has are 0."""
        size = self.batch, 1, rows.stop - rows.start, columns.stop - columns.start
        out = self.stretches[0].features.queries.new_zeros(size)
        for own, of, first, last in self.stretches:
            low, high = max(rows.start, first), min(rows.stop, last)
            keys = slice(columns.start, min(columns.stop, own.units))
            if low < high and keys.start < keys.stop:
                part = own.scores(slice(low - first, high - first), keys, offset + first)
                out[of, :, low - rows.start : high - rows.start, : keys.stop - keys.start] = part
        return out

    def of_group(self, group: int) -> "Mixed":
        return self

    def cost(self, zones: Zones | tuple[Zones, ...], length: int) -> float:
        """As of `Scorer`, the mean over the rows: each stretch costs the pairs of its own queries."""
        total = 0.0
        for own, rows, first, last in self.stretches:
            until, begun = (own.cost(zones, min(self.before + query, length)) for query in (last, first))
            total += len(rows) / self.batch * (until - begun)
        return total


def select_mixed(
    scorer: Mixed,
    select: Callable[[IndexFeatures, Tensor, int, Tensor | None], Selection],
    limit: Int[Tensor, "batch group time"],
    offset: int,
    first: Int[Tensor, "batch"] | None,
) -> Selection:
    """The keys of every query, each stretch's selected by its own features.

    Args:
        select: of features, limits, offset and first real keys; see `dsa.ops.reference.select`.
    """
    parts = []
    for own, rows, low, high in scorer.stretches:
        begin = None if first is None else first[rows]
        parts.append(select(own, limit[rows][:, :, low:high].contiguous(), offset + low, begin))
    wide = equally_wide(parts)
    groups, slots = wide[0].positions.shape[1], wide[0].positions.shape[-1]
    positions = torch.full((scorer.batch, groups, scorer.time, slots), -1, dtype=torch.int32, device=limit.device)
    counts = torch.zeros(positions.shape[:-1], dtype=torch.int32, device=limit.device)
    for (_, rows, low, high), part in zip(scorer.stretches, wide, strict=True):
        positions[rows, :, low:high], counts[rows, :, low:high] = part
    return Selection(positions, counts)


def mixed_loss(
    features: Mixed,
    target: Target,
    selection: Selection | None,
    loss: Callable[[IndexFeatures, Target, Selection | None], Float[Tensor, ""]],
) -> Float[Tensor, ""]:
    """The mean over all queries of what each stretch is to minimise: see `dsa.ops.reference.indexer_loss`."""
    total = features.stretches[0].features.queries.new_zeros(())
    weight = torch.zeros((), device=total.device)
    for own, rows, first, last in features.stretches:
        part, kept = part_of(target, rows, first, last), None
        counted = torch.ones(len(rows), 1, last - first, device=rows.device)
        if selection is not None:
            kept = Selection(*(x[rows][:, :, first:last].contiguous() for x in selection))
            counted = (kept.counts > 0).to(counted)
        if isinstance(part, TrueAttention) and part.emphasis is not None and part.emphasis.rows is not None:
            counted = counted * part.emphasis.rows[:, None]
        count = counted.sum() / counted.shape[1]
        total, weight = total + count * loss(own, part, kept), weight + count
    return total / weight.where(weight > 0, 1.0)


def part_of(target: Target, rows: Int[Tensor, "*row"], first: int, last: int) -> Target:
    """What some queries of some rows are to learn, with the keys up to the last of them."""
    if isinstance(target, Tensor):
        keys = target.shape[3] - target.shape[2] + last
        return target[rows][:, :, first:last, :keys]
    keys = target.keys.shape[2] - target.queries.shape[2] + last
    emphasis = target.emphasis
    if emphasis is not None:
        emphasis = emphasis._replace(
            rows=None if emphasis.rows is None else emphasis.rows[rows][:, first:last],
            upstream=None if emphasis.upstream is None else emphasis.upstream[rows][:, :, first:last],
            values=None if emphasis.values is None else emphasis.values[rows][:, :, :keys],
        )
    return target._replace(
        queries=target.queries[rows][:, :, first:last],
        keys=target.keys[rows][:, :, :keys],
        logsumexp=target.logsumexp[rows][:, :, first:last],
        mass=None,
        emphasis=emphasis,
    )
