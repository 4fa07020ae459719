"""Zones: which keys a query may see, as arithmetic progressions of positions, and how a budget is shared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

Keep = Literal["all", "selector"] | int | float


@dataclass(frozen=True)
class Zone:
    """Keys of a query at t: those from t - first to t - last, every `step`-th counted back from the nearest.

    Positions count from the row's first real token, so a left-padded row sees what the unpadded one sees. (Units of
    several tokens lie on a grid of their own: there a row must be padded by whole units.)

    Args:
        first: distance of the farthest key [tokens]; None reaches back to the row's first token.
        last: distance of the nearest key [tokens]; 0 is the query itself.
        step: distance between neighbouring keys [tokens].
        align: the zone begins at a multiple of this position, rounded towards the query [tokens].
        keep: "all" (forced), a number of keys, a share of the zone's keys, or "selector" (the whole budget).
        begin: position before which it holds no key, whatever the query [tokens].
        end: position from which on it holds no key, whatever the query; None = up to the query [tokens].
    """

    first: int | None
    last: int = 0
    step: int = 1
    align: int = 1
    keep: Keep = "selector"
    begin: int = 0
    end: int | None = None
    # Not for reading: it makes zones that keep 1 key and a share of 1.0 unequal, though 1 == 1.0. What is remembered
    # of zones is found by equality.
    kind: type = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", type(self.keep))
        words = isinstance(self.keep, str) and self.keep in ("all", "selector")
        if not words and (isinstance(self.keep, bool) or not isinstance(self.keep, int | float)):
            raise ValueError(f"zone.keep = {self.keep}: give all, selector, a number of keys or a share of them.")
        if self.last < 0:
            raise ValueError(f"zone.last = {self.last}: a key after its query would be the future; give 0 or more.")
        if self.step < 1 or self.align < 1:
            raise ValueError(f"zone.step = {self.step}, zone.align = {self.align}: both must be 1 or more.")
        if self.begin < 0 or (self.end is not None and self.end <= self.begin):
            raise ValueError(f"zone.begin = {self.begin}, zone.end = {self.end}: give 0 or more, and an end beyond it.")
        if isinstance(self.keep, float) and not 0 < self.keep <= 1:
            raise ValueError(f"zone.keep = {self.keep}: a share must lie above 0 and at most 1.")
        if isinstance(self.keep, int) and self.keep < 1:
            raise ValueError(f"zone.keep = {self.keep}: a number of keys must be 1 or more.")

    @property
    def forced(self) -> bool:
        return self.keep == "all"

    def span(self, time: Int[Tensor, "..."]) -> tuple[Int[Tensor, "..."], Int[Tensor, "..."]]:
        """First position and number of keys for queries at `time`; queries before the row's first token have none."""
        stop = time - self.last if self.end is None else (time - self.last).clamp(max=self.end - 1)
        start = torch.full_like(time, self.begin) if self.first is None else (time - self.first).clamp(min=self.begin)
        start = -(-start // self.align) * self.align
        count = ((stop - start) // self.step + 1).clamp(min=0)
        count = torch.where(stop >= 0, count, 0)
        return stop - (count - 1) * self.step, count

    def kept(self, count: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """How many of `count` keys the zone keeps when no selector says otherwise."""
        if isinstance(self.keep, float):
            return (count.double() * self.keep - 1e-9).ceil().long()
        if isinstance(self.keep, int):
            return count.clamp(max=self.keep)
        return count


Zones = tuple[Zone, ...]


def by_group(zones: Zones | tuple[Zones, ...]) -> tuple[Zones, ...]:
    """The zones of each group; those that all groups share stand alone."""
    shared = tuple(zone for zone in zones if isinstance(zone, Zone))
    return tuple(zone for zone in zones if not isinstance(zone, Zone)) or (shared,)


class Span(NamedTuple):
    """What each query takes from one zone: the nearest `keep` units if forced, else the `keep` best by score.

    A unit is a token, or with `unit` > 1 so many tokens; `start` then counts units.
    """

    start: Int[Tensor, "batch 1 time"]
    count: Int[Tensor, "batch 1 time"]  # type: ignore[assignment]  # tuple.count is never wanted here
    keep: Int[Tensor, "batch group time"]
    step: int
    forced: bool
    unit: int = 1


def within(
    start: Int[Tensor, "..."], count: Int[Tensor, "..."], step: int, begin: Int[Tensor, "..."], end: Int[Tensor, "..."]
) -> Int[Tensor, "..."]:
    """How many of `count` positions from `start` on, `step` apart, lie from `begin` on and before `end`."""
    first, last = (torch.minimum((-((start - edge) // step)).clamp(min=0), count) for edge in (begin, end))
    return (last - first).clamp(min=0)


def first_forced(forced: Zones, time: Int[Tensor, "*batch time"]) -> Int[Tensor, "*batch time"]:
    """The key from which on a scorer forces all up to queries at `time`; the one after the query if it forces none.

    Raises:
        ValueError: a zone leaves gaps, or does not reach the query.
    """
    out = time + 1
    for zone in forced:
        if zone.last or zone.step > 1 or zone.end is not None or not zone.forced:
            raise ValueError(
                f"forced = {zone}: an indexer forces whole windows; give last = 0, step = 1, no end, keep = all."
            )
        start, count = zone.span(time)
        out = torch.where(count > 0, out.minimum(start), out)
    return out


def shown(
    zone: Zone, time: Int[Tensor, "*batch time"], fence: Int[Tensor, "*batch time"] | None
) -> tuple[Tensor, Tensor]:
    """First position and number of a zone's keys before `fence`, from which on a scorer forces all."""
    start, count = zone.span(time)
    if fence is None:
        return start, count
    return start, count.minimum(-(-(fence - start) // zone.step)).clamp(min=0)


def visible(
    zones: Zones | tuple[Zones, ...], time: Int[Tensor, "*batch time"], forced: Zones = ()
) -> Int[Tensor, "*batch group time"]:
    """Number of keys that queries at `time` (counted from the row's first token) can see, by group.

    Args:
        forced: what a scorer forces; it is seen too, and counts once.
    """
    return counted(zones, time, forced, lambda zone, count: count)


def kept(
    zones: Zones | tuple[Zones, ...], time: Int[Tensor, "*batch time"], forced: Zones = ()
) -> Int[Tensor, "*batch group time"]:
    """Number of keys that the zones keep when no selector says otherwise, and a scorer forces; as `visible`."""
    return counted(zones, time, forced, Zone.kept)


def counted(
    zones: Zones | tuple[Zones, ...], time: Tensor, forced: Zones, share: Callable[[Zone, Tensor], Tensor]
) -> Int[Tensor, "*batch group time"]:
    """The sum over zones of a share of the keys they show, and the forced ones."""
    fence = first_forced(forced, time)
    groups = [
        torch.stack([share(zone, shown(zone, time, fence)[1]) for zone in each]).sum(0) for each in by_group(zones)
    ]
    return torch.stack(groups, -2) + (time + 1 - fence)[..., None, :]


def spans(
    zones: Zones,
    limit: Int[Tensor, "batch group time"],
    offset: int = 0,
    first: Int[Tensor, "batch"] | None = None,
    unit: int = 1,
    forced: Zones = (),
) -> list[Span]:
    """Share each query's budget among the zones.

    Forced keys fill first: those of the scorer, then those of the zones, nearest first, zones with an end last. Each
    counts once. The rest goes to the scored zones in proportion to what they keep by default, rounded up, in the order
    of the zones, the surplus to the last; what a zone cannot use goes to the others. Exactly min(limit, visible) keys
    are kept. With `unit` > 1 only units wholly inside a scored zone compete; the tokens after a zone's last whole unit
    are kept, and quotas round down to whole units.

    Args:
        limit: most keys each query may keep, forced ones included.
        offset: position of the first query.
        first: first real key of each left-padded row; None = 0. A multiple of the unit.
        unit: tokens per unit of the scored zones.
        forced: what the scorer forces, from which on nothing competes.
    """
    batch, _, length = limit.shape
    position = torch.arange(offset, offset + length, device=limit.device).expand(batch, 1, length)
    if unit > 1 and first is not None and bool((first % unit).any()):
        raise ValueError(
            f"first = {first.tolist()}: where keys are chosen in units, give a multiple of their {unit} tokens."
        )
    pad = torch.zeros_like(position) if first is None else first[:, None, None].expand_as(position)
    time = position - pad
    fence = first_forced(forced, time) if forced else None
    wanted = [] if fence is None else [(fence + pad, time + 1 - fence, 1)]
    for zone in sorted((z for z in zones if z.forced), key=lambda z: (z.end is not None, z.last)):
        start, count = shown(zone, time, fence)
        wanted.append((start + pad, count, zone.step))
    areas = []
    for zone in (zone for zone in zones if not zone.forced):
        start, count = shown(zone, time, fence)
        area = Area(zone, start + pad, count, zone.kept(count))
        if unit > 1:
            tail, area = area.in_units(unit)
            wanted.append(tail)
        areas.append(area)
    left, out = limit.long().clamp(min=0), []
    for start, count, step in wanted:
        keep = torch.minimum(count, left)
        left = left - keep
        out.append(Span(start, count, keep, step, forced=True))
    return out + shared_out(left, areas, unit)


class Area(NamedTuple):
    """Where the keys of one scored zone lie, counted in units, and how many tokens of them it keeps by default."""

    zone: Zone
    start: Int[Tensor, "batch 1 time"]
    count: Int[Tensor, "batch 1 time"]  # type: ignore[assignment]  # as in Span
    wish: Int[Tensor, "batch 1 time"]

    def in_units(self, unit: int) -> tuple[tuple[Tensor, Tensor, int], "Area"]:
        """The tokens after its last whole unit, as start, number and step, and its whole units.

        Raises:
            ValueError: it leaves gaps between tokens, or begins within a unit.
        """
        if self.zone.step > 1:
            raise ValueError(f"zone.step = {self.zone.step} with units of {unit} tokens: units need contiguous zones.")
        if self.zone.begin % unit:
            raise ValueError(
                f"zone.begin = {self.zone.begin} with units of {unit} tokens: what follows it in its unit could not be "
                "chosen; give a multiple of the unit."
            )
        end = self.start + self.count
        tail = torch.minimum(end % unit, self.count)
        start = -(-self.start // unit)
        return (end - tail, tail, 1), self._replace(start=start, count=(end // unit - start).clamp(min=0))


def shared_out(budget: Int[Tensor, "batch group time"], areas: list[Area], unit: int) -> list[Span]:
    """What each scored zone gets of the keys that are left, and the best of it by score."""
    total = sum((area.wish for area in areas), torch.zeros_like(budget))
    rest, quotas = budget, []
    for area in areas:
        share = rest if area is areas[-1] else -(-budget * area.wish // total.clamp(min=1))
        quota = torch.minimum(torch.minimum(share, rest) // unit, area.count)
        rest = rest - quota * unit
        quotas.append(quota)
    out = []
    for area, quota in zip(areas, quotas, strict=True):
        more = torch.minimum(rest // unit, area.count - quota)
        rest = rest - more * unit
        out.append(Span(area.start, area.count, quota + more, area.zone.step, forced=False, unit=unit))
    return out
