"""What part of an axis to show, so that one hopeless control does not hide the differences between conditions."""

import math
from collections.abc import Sequence

from dsa.analysis.output.figures.spec import Axis, Interval

DECADES = 1.3  # more than this factor of ten between the least and the largest value asks for a logarithmic axis
STRETCH = 2.0  # how much wider controls may make an axis
ROOM = 0.06


def axis(
    label: str,
    core: Sequence[float],
    others: Sequence[float] = (),
    log: bool = True,
    guides: tuple[float, ...] = (),
) -> Axis:
    """An axis over all core values, and over those others that do not stretch it too far.

    Args:
        log: whether it may be logarithmic.
    """
    core = core or others
    values = [*core, *others]
    if not values:
        return Axis(label, guides=guides)
    logarithmic = log and min(values) > 0 and math.log10(max(core) / min(core)) > DECADES
    scaled = math.log10 if logarithmic else float
    low, high = (scaled(f(core)) for f in (min, max))
    span = high - low or abs(high) * 0.1 or 1.0
    reach = [scaled(v) for v in others if low - STRETCH * span <= scaled(v) <= high + STRETCH * span]
    low, high = min([low, *reach]), max([high, *reach])
    room = ROOM * (high - low or span)
    low, high = low - room, high + room
    return Axis(label, logarithmic, (10**low, 10**high) if logarithmic else (low, high), log, guides)


def ends(value: float, interval: Interval | None) -> list[float]:
    """A value and the ends of its interval."""
    return [value, *(interval or ())]
