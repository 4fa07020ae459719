"""What part of an axis to show, so that one hopeless control does not hide the differences between conditions."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from dsa.analysis.output.figures.spec import Axis, Interval

DECADES = 1.3  # more than this factor of ten between the least and the largest value asks for a logarithmic axis
STRETCH = 2.0  # how much wider controls may make an axis
ROOM = 0.06
FEW = 3.0  # margins within which an axis is linear that is logarithmic beyond


def axis(
    label: str,
    core: Sequence[float],
    others: Sequence[float] = (),
    log: bool = True,
    guides: tuple[float, ...] = (),
    margin: float = 0.0,
) -> Axis:
    """An axis over all core values, and over those others that do not stretch it too far.

    Args:
        log: whether it may be logarithmic.
        margin: largest difference that counts as none, of an axis of differences: where most are small beside the
            largest, it is linear within a few margins and logarithmic beyond.
    """
    core = core or others
    values = [*core, *others]
    if not values:
        return Axis(label, guides=guides)
    logarithmic = log and min(values) > 0 and math.log10(max(core) / min(core)) > DECADES
    within = FEW * margin if not logarithmic and margin and crowded(core, FEW * margin) else None
    scaled, back = rulers(logarithmic, within)
    low, high = (scaled(f(core)) for f in (min, max))
    span = high - low or abs(high) * 0.1 or 1.0
    reach = [scaled(v) for v in others if low - STRETCH * span <= scaled(v) <= high + STRETCH * span]
    low, high = min([low, *reach]), max([high, *reach])
    room = ROOM * (high - low or span)
    return Axis(label, logarithmic, (back(low - room), back(high + room)), log, guides, within)


def crowded(values: Sequence[float], near: float) -> bool:
    """Whether most values lie so near to 0, beside the largest, that a linear axis shows them as one."""
    sizes = np.abs(values)
    return bool(sizes.max() > 10 * near and np.quantile(sizes, 0.25) < sizes.max() / 10**DECADES)


def rulers(logarithmic: bool, within: float | None) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """From a value to its place on the axis, and back."""
    if logarithmic:
        return math.log10, lambda place: 10.0**place
    if within is None:
        return float, float
    return (
        lambda value: math.copysign(math.log10(1 + abs(value) / within), value),
        lambda place: math.copysign((10 ** abs(place) - 1) * within, place),
    )


def ends(value: float, interval: Interval | None) -> list[float]:
    """A value and the ends of its interval."""
    return [value, *(interval or ())]
