"""Selecting on the fused CPU kernels."""

import ctypes
import threading
from collections import deque
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsa.ops.contracts import Scorer, Selection, Trim
from dsa.ops.native import arguments
from dsa.ops.native.arguments import address, asked, call, scratch, units, workspace
from dsa.ops.native.pack import CAPPED, SelectArgs, ZoneArgs, material, packed
from dsa.ops.scorers import IndexFeatures
from dsa.ops.scores import report_broken, scale_of, slots_for
from dsa.ops.trims import trimmed
from dsa.ops.zones import Span, Zone, Zones, spans


def select(
    scorer: Scorer,
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    trim: Trim | None = None,
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    slots: int | None = None,
) -> Selection:
    """As `reference.select`.

    Raises:
        FloatingPointError: a key that competes has a score that is not a number.
    """
    selection, rows = scan(scorer, zones, limit, offset, first, slots, statistics=trim is not None)
    if trim is None:
        return selection
    positions, counts = trimmed(trim, selection, scorer.unit, *rows)
    return Selection(positions[..., : slots_for(counts, slots)].contiguous(), counts)


def scan(
    scorer: Scorer,
    zones: Zones,
    limit: Tensor,
    offset: int = 0,
    first: Tensor | None = None,
    slots: int | None = None,
    *,
    statistics: bool,
) -> tuple[Selection, list[Tensor]]:
    """What is selected; with `statistics` also the kept keys' scores (NaN where forced) and the rows' log-sum-exp,
    entropy and log-sum-exp over the forced keys, all of units."""
    batch, zone_groups, time = limit.shape
    groups, of = max(scorer.groups, zone_groups), material(scorer)
    every, table, counts, fewest, most = budgets(tuple(zones), limit, offset, first, scorer.unit, scorer.forced)
    slots = fewest if slots is None else slots_for(counts, slots)
    forced_scores = statistics and scorer.unit == 1
    ready = packed(of, every, offset + time, forced_scores)
    threads = torch.get_num_threads()
    some = batch * groups * -(-time // asked(ready.kernels, "select_unit"))
    numbers = (offset + time) * of.constants.get("HEADS", 1) * of.constants.get("DIM", 1)
    parts = 1 if statistics else units(some, threads, numbers // arguments.SHARED)
    found = batch * groups * time * len(every) * parts if parts > 1 else 0  # lists, one a part
    capacity = max(2 * most, most + 1024, parts * most) + asked(ready.kernels, "select_chunk", of.pool)
    memory, size = scratch(ready.kernels, "select_scratch", threads, capacity, of.pool, slots)
    shape = (batch, groups, time)
    positions = torch.empty(*shape, slots, dtype=torch.int32)
    broken = torch.empty(shape, dtype=torch.int32)
    rows = [torch.empty(*shape, slots), *(torch.empty(shape) for _ in range(3))] if statistics else []
    row = table.stride(1) * table.element_size()
    first_rows = range(table.data_ptr(), table.data_ptr() + 3 * row * len(every), 3 * row)
    zone_args = (ZoneArgs * len(every))(
        *(
            ZoneArgs(at, at + row, at + 2 * row, s.step, s.forced, s.unit, *ready.steps[s.step])
            for at, s in zip(first_rows, every, strict=True)
        )
    )
    args = SelectArgs(
        ctypes.addressof(zone_args), len(every), ready.args, batch, groups, scorer.groups, zone_groups, time, offset,
        slots, of.pool, capacity, forced_scores, address(positions), address(broken),
        *(map(address, rows) if rows else [None] * 4), threads, address(memory), size, parts, most,
        address(workspace.take("part scores", found * most)),
        address(workspace.take("part indices", found * most, torch.int32)),
        address(workspace.take("part counts", 2 * found, torch.int32)),
    )  # fmt: skip
    if call(ready.kernels.select_keys, ctypes.byref(args)):
        report_broken(broken)
    return Selection(positions, counts.expand(shape).clone(memory_format=torch.contiguous_format)), rows


AHEAD = 64
"""Queries whose budgets are computed together: it costs what one costs."""


class Budgets(NamedTuple):
    """What the kernels are told of zones and budgets: it is the same for all layers, and mostly for all steps."""

    every: list[Span]
    table: Int[Tensor, "zone 3 batch group time"]  # start, count and keep of every span
    counts: Int[Tensor, "batch group time"]
    slots: int
    most: int  # keys that a query takes by score from one zone


class Asked(NamedTuple):
    """What budgets follow from.

    Args:
        many: how many queries in a row have each of these limits; the answer has as many.
    """

    zones: Zones
    limit: Int[Tensor, "batch group time"]
    many: int
    offset: int
    first: Int[Tensor, "batch"] | None
    unit: int
    forced: Zones

    def same(self, other: "Asked") -> bool:
        """Whether the answer is the same."""
        return (
            (self.many, self.offset, self.unit) == (other.many, other.offset, other.unit)
            and (self.zones, self.forced) == (other.zones, other.forced)
            and torch.equal(self.limit, other.limit)
            and (self.first is None) == (other.first is None)
            and (self.first is None or other.first is None or torch.equal(self.first, other.first))
        )

    def kept(self) -> "Asked":
        """With numbers of its own, whatever becomes of the caller's."""
        return self._replace(limit=self.limit.clone(), first=None if self.first is None else self.first.clone())


class Recent(threading.local):
    """What was told last, kept by the thread: the next layer and the next step mostly ask for the same."""

    def __init__(self) -> None:
        self.kept: deque[tuple[Asked, list[Budgets]]] = deque(maxlen=8)

    def of(self, asked: Asked) -> list[Budgets]:
        """The budgets of what is asked, computed now unless they are there."""
        found = next((told for before, told in self.kept if asked.same(before)), None)
        if found is None:
            found = computed(asked)
            self.kept.appendleft((asked.kept(), found))
        return found


recent = Recent()


def budgets(zones: Zones, limit: Tensor, offset: int, first: Tensor | None, unit: int, forced: Zones) -> Budgets:
    """Of these queries; of one alone it is computed for its neighbours too, which mostly are the next to be asked."""
    many = AHEAD if limit.shape[2] == 1 and first is None else 1
    begin = offset // many * many
    starts = None if first is None else first.long()
    return recent.of(Asked(zones, limit.long(), many, begin, starts, unit, forced))[offset - begin]


def computed(asked: Asked) -> list[Budgets]:
    """Of every query that is asked for."""
    many = asked.many
    limits = asked.limit.repeat_interleave(many, -1)
    every = spans(asked.zones, limits, asked.offset, asked.first, asked.unit, asked.forced)
    table = torch.stack([torch.stack(torch.broadcast_tensors(s.start, s.count, s.keep)) for s in every])
    counts = (table[:, 2] * torch.tensor([s.unit for s in every])[:, None, None, None]).sum(0).int()
    tables, counted = (x.unflatten(-1, (-1, many)).movedim(-1, 0).contiguous() for x in (table, counts))
    by_score = tables[:, [number for number, s in enumerate(every) if not s.forced], 2].flatten(1)
    most = by_score.amax(1).tolist() if by_score.shape[1] else [0] * many
    slots = counted.flatten(1).amax(1).clamp(min=1).tolist() if counted.numel() else [1] * many
    return [Budgets(every, *own) for own in zip(tables, counted, slots, most, strict=True)]


def dense_logsumexp(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    sink: Float[Tensor, "head"] | None = None,
    *,
    scale: float | None = None,
    cap: float | None = None,
) -> Float[Tensor, "batch head time"]:
    """As `reference.dense_logsumexp` without a cap: what `select` can learn of rows of scores, a group per head."""
    assert cap is None, CAPPED
    batch, _, time, _ = q.shape
    everything = (Zone(first=None, keep="all"),)
    logits = IndexFeatures(q.detach().float()[:, :, :, None] * scale_of(q, scale), k.detach(), activation="none")
    nothing = torch.zeros(batch, 1, time, dtype=torch.long)
    _, rows = scan(logits, everything, nothing, k.shape[2] - time, statistics=True)
    return rows[1] if sink is None else torch.logaddexp(rows[1], sink.detach().float()[:, None])
