"""A panel of points on two axes, with what lies off the scale told by name."""

from collections.abc import Sequence

from dsa.analysis.output.figures.limits import axis, ends
from dsa.analysis.output.figures.spec import Panel, Spot

CONDITIONS = ("condition", "baseline")


def framed(
    name: str,
    x_label: str,
    y_label: str,
    spots: Sequence[Spot],
    core: tuple[str, ...] = CONDITIONS,
    log: bool = True,
    guides: tuple[float, ...] = (),
    margin: float = 0.0,
) -> Panel:
    """The panel; spots beyond its y axis are named in its note.

    Args:
        core: roles that are always on the scale; others where they do not stretch it too far.
        log: whether the y axis may be logarithmic.
        guides, margin: of the y axis.
    """
    mine = [s for s in spots if s.role in core]
    values = [end for s in mine for end in ends(s.y, s.y_interval)]
    y = axis(y_label, values, [*(s.y for s in spots if s not in mine), *guides], log, guides, margin)
    assert y.limits is not None
    seen = [s for s in spots if y.limits[0] <= s.y <= y.limits[1]]
    x = axis(x_label, [end for s in seen for end in ends(s.x, s.x_interval)])
    off = ", ".join(f"{s.label} ({s.y:.3g})" for s in spots if s not in seen)
    return Panel(name, x, y, spots=tuple(seen), note=off and f"off the scale: {off}")
