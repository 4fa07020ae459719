"""What a figure shows, apart from how it is drawn: matplotlib and the report's own script draw the same values."""

from dataclasses import dataclass

Interval = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """An axis.

    Args:
        label: quantity and unit.
        limits: what is shown; values beyond are marked at the edge. None = all values.
        marked: whether to say which scale it has, where that depends on the values.
        linear_within: nearer to 0 than this the axis is linear, beyond it logarithmic either way; None = linear or log
            throughout.
        ticks: values that it names; None = round ones.
        guides: values to which others are to be compared, drawn as lines across; 0 solid, others dashed.
    """

    label: str
    log: bool = False
    limits: Interval | None = None
    marked: bool = False
    guides: tuple[float, ...] = ()
    linear_within: float | None = None
    ticks: tuple[float, ...] | None = None

    @property
    def title(self) -> str:
        """The label, and the scale where it has to be said."""
        if self.linear_within is not None:
            return f"{self.label}\n(log scale beyond ±{self.linear_within:g})"
        return self.label + (f", {'log' if self.log else 'linear'} scale" if self.marked else "")


@dataclass(frozen=True)
class Mark:
    """One value of a row.

    Args:
        series: which of the figure's series it belongs to.
        reference: what it is to be compared with, drawn as a tick.
    """

    series: int
    value: float
    interval: Interval | None = None
    reference: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A condition's or control's values side by side.

    Args:
        role: condition, baseline, or which control.
        note: what stands at the row's right end.
        ends: what it means to lie to the left of 0, and to the right.
    """

    label: str
    role: str
    marks: tuple[Mark, ...]
    note: str = ""
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Spot:
    """A condition or control on two axes.

    Args:
        standing: front, open (undecided), dominated, or unranked; measured where nothing is ranked by it.
        command: what trains it.
    """

    label: str
    role: str
    x: float
    y: float
    x_interval: Interval | None
    y_interval: Interval | None
    standing: str
    note: str = ""
    command: str = ""


@dataclass(frozen=True)
class Line:
    """A condition's or control's course: the mean over seeds with its interval, or the median over turns.

    Args:
        over: how many seeds or turns, in words.
        marked: of few points, each drawn with its interval.
    """

    label: str
    role: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    over: str
    marked: bool = False


@dataclass(frozen=True)
class Panel:
    """One length (and context) of a figure; which of the lists is filled is the kind of figure.

    Args:
        y: of a matrix, what its colours mean.
        envelope: means that no other mean beats on both axes.
    """

    name: str
    x: Axis
    y: Axis | None = None
    rows: tuple[Row, ...] = ()
    spots: tuple[Spot, ...] = ()
    lines: tuple[Line, ...] = ()
    envelope: tuple[tuple[float, float], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A figure: panels side by side, one a length.

    Args:
        name: file name without its ending.
        kind: forest, dots, heat, bars, matrix, scatter or lines.
        series: names of what a row's marks are; of a matrix, its columns.
        caption: how to read it, and what it lacks.
    """

    name: str
    kind: str
    title: str
    panels: tuple[Panel, ...]
    series: tuple[str, ...] = ()
    caption: str = ""
