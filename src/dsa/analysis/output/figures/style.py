"""How figures look: the palette of Okabe and Ito, one sign for each role, and paper-sized type."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, MaxNLocator, NullLocator

from dsa.analysis.output.figures.spec import Axis, Chart, Interval, Row

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#777777"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK, GREY)
MARKERS = ("o", "D", "^", "v", "s", "P", "X", "*")
LINES = (BLUE, GREEN, PURPLE, SKY, BLACK)  # none that could be taken for the baseline's
CONTROL_MARKERS = {"dense": "s", "oracle": "^", "random": "X", "window": "v", "sink_window": "<", "static": ">",
                   "replicate": "D"}  # fmt: skip
LINEAR = 0.6  # width of the linear part either side of 0, of an axis that is logarithmic beyond [decades]
MOST_TICKS = 9
ROW = 0.2  # height of a named row [inches]
DASHES = ("-", "--", "-.", ":")
CONTROL_DASHES = {"dense": (0, (6, 2)), "oracle": (0, (4, 2, 1, 2)), "random": (0, (1, 1)), "window": (0, (1, 3)),
                  "sink_window": (0, (3, 1, 1, 1)), "static": (0, (5, 1)), "replicate": (0, (2, 2))}  # fmt: skip


def new_figure(chart: Chart, panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a row of panels, each of a size in inches, and its title, for which it is widened if it must be.

    Raises:
        ValueError: the chart has nothing to show.
    """
    if not panels:
        raise ValueError(f"figure {chart.name}: nothing to show. {chart.caption}")
    figure = Figure(figsize=(max(3.4, panels * width), height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    heading = figure.suptitle(chart.title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    figure.set_figwidth(max(figure.get_figwidth(), heading.get_window_extent().width / figure.dpi + 0.15))
    for axes_ in axes:
        axes_.tick_params(labelsize=7)
        axes_.spines[["top", "right"]].set_visible(False)
    return figure, axes


def figure_of_rows(chart: Chart, width: float, height: float) -> tuple[Figure, list[Axes], int]:
    """A figure whose panels have named rows, as wide and as high without names and rows [inches]; the most rows.

    Raises:
        ValueError: the chart has nothing to show.
    """
    rows = max((len(panel.rows) for panel in chart.panels), default=0)
    names = [fit(row.label) for panel in chart.panels for row in panel.rows]
    figure, axes = new_figure(chart, len(chart.panels), width + width_of_labels(names), height + ROW * rows)
    return figure, axes, rows


def legend_below(figure: Figure, handles: Sequence[Artist], most: int = 6, fontsize: float = 7) -> None:
    """A legend in as many columns as fit below the panels; a figure narrower than the legend is widened."""
    for columns in range(min(most, len(handles)), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower left", fontsize=fontsize, frameon=False, ncols=columns
        )
        needed = legend.get_window_extent().width / figure.dpi + 0.15
        if needed <= figure.get_figwidth() or columns == 1:
            figure.set_figwidth(max(needed, figure.get_figwidth()))
            return
        legend.remove()


def apply(axes: Axes, axis: Axis, which: str, label: bool = True) -> None:
    """Scale, limits, ticks and label of one axis.

    Args:
        which: x or y.
        label: whether this panel carries the label.
    """
    if axis.linear_within is None:
        getattr(axes, f"set_{which}scale")("log" if axis.log else "linear")
    else:
        getattr(axes, f"set_{which}scale")("symlog", linthresh=axis.linear_within, linscale=LINEAR)
    if axis.limits is not None:
        getattr(axes, f"set_{which}lim")(*axis.limits)
    ruler = axes.xaxis if which == "x" else axes.yaxis
    if axis.ticks is not None:
        ruler.set_major_locator(FixedLocator(axis.ticks))
        ruler.set_minor_locator(NullLocator())
    elif axis.log:
        narrow = axis.limits is not None and axis.limits[1] / axis.limits[0] < 300
        ruler.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
        ruler.set_minor_locator(NullLocator())
    elif axis.linear_within is not None:
        assert axis.limits is not None
        ruler.set_major_locator(FixedLocator(either_way(axis.linear_within, axis.limits)))
        ruler.set_minor_locator(NullLocator())
    else:
        ruler.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    ruler.set_major_formatter(Distinct())
    if label:
        getattr(axes, f"set_{which}label")(axis.title, fontsize=8)


def either_way(linear: float, limits: Interval) -> list[float]:
    """Ticks of an axis that is logarithmic on both sides of 0: thirds of decades, or whole ones where they are many."""
    low, high = limits
    first, last = math.floor(math.log10(linear)), math.ceil(math.log10(max(-low, high)))
    for steps in ((1, 3), (1,)):
        sizes = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = sorted({0.0, *(sign * size for size in sizes if size >= linear * 0.999 for sign in (-1, 1))})
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) <= MOST_TICKS:
            return found
    return found


class Distinct(Formatter):
    """Numbers with as many digits as it takes to place them a hundredth of the way to their neighbours."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        return short(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """All labels of an axis."""
        apart = min((abs(b - a) for a, b in pairwise(values)), default=math.inf)
        enough = (d for d in range(3, 9) if all(abs(float(f"{v:.{d}g}") - v) < apart / 100 for v in values))
        digits = next(enough, 9)
        return [short(value, digits) for value in values]


def guides(axes: Axes, axis: Axis, which: str) -> None:
    """The lines of an axis to which values are to be compared."""
    across = axes.axvline if which == "x" else axes.axhline
    for value in axis.guides:
        across(value, color="0.4", linewidth=0.8, linestyle="-" if value == 0 else "--", zorder=0.9)


def name_rows(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Names at the left, the baseline's in red; a line above the first control."""
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    for row, text in zip(rows, axes.get_yticklabels(), strict=True):
        text.set_color(colour_of(row.role, "black"))
        text.set_fontweight("bold" if row.role == "baseline" else "normal")
    first = next((y for y, row in enumerate(rows) if row.role not in ("condition", "baseline")), None)
    if first:
        axes.axhline(first - 0.5, color="0.6", linewidth=0.6)


def short(value: float, digits: int = 3) -> str:
    """A number as an axis shows it: 1.2M, 340k, 0.05."""
    for factor, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (factor if sign != 'k' else 1e3):.{digits}g}{sign}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def colour_of(role: str, otherwise: str = BLUE) -> str:
    """A role's colour."""
    return {"baseline": VERMILION, "condition": otherwise, "dense": BLACK}.get(role, GREY)


def width_of_labels(labels: list[str]) -> float:
    """Inches that row labels take."""
    return 0.055 * max((len(label) for label in labels), default=0)


def fit(text: str, most: int = 34) -> str:
    """A label, cut if it is too long; dollars are no mathematics here."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut.replace("$", r"\$")
