"""Rows of values with intervals, one panel a length."""

import textwrap
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row

ROW, LINE, ENDS = 0.2, 0.11, 0.13  # inches: a row, a further line of its label, a line of what stands above it
NAME, SIDE = 34, 44  # characters in a line of a label, and of what a side of 0 means
MOST = 6  # values of a row that signs and colours can tell apart


def draw_forest(chart: Chart) -> Figure:
    """Conditions downwards, controls below a line, the baseline's name in red.

    Raises:
        ValueError: the chart has nothing to show.
    """
    every = [row for panel in chart.panels for row in panel.rows]
    rows = max((len(panel.rows) for panel in chart.panels), default=0)
    ends = max((2 * len(line) for row in every for end in meant(row) for line in end.split("\n")), default=0)
    names = [line for row in every for line in named(row).split("\n")]
    width = (
        max(2.6, 0.05 * ends) + style.width_of_labels(names) + 0.04 * max((len(row.note) for row in every), default=0)
    )
    tall = ROW + LINE * (deepest(map(named, every)) - 1) + ENDS * deepest(end for row in every for end in meant(row))
    height = 1.35 + tall * rows + 0.14 * len(chart.series)
    figure, axes = style.new_figure(chart, len(chart.panels), width, height)
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_panel(axes_, panel, chart)
    handles = [
        Line2D([], [], color=style.SERIES[i % 8], marker=style.MARKERS[i % 8], markersize=4, linewidth=1, label=name)
        for i, name in enumerate(chart.series)
    ]  # fmt: skip
    if len(chart.series) > 1:
        style.legend_below(figure, handles, most=4 if len(chart.series) > 3 else 1)
    return figure


def named(row: Row) -> str:
    """A row's label over as many lines as it takes; dollars are no mathematics here."""
    return textwrap.fill(row.label, NAME, break_long_words=False).replace("$", r"\$")


def meant(row: Row) -> list[str]:
    """What the sides of 0 mean, over as many lines as they take."""
    return [textwrap.fill(text.replace(",", ", "), SIDE).replace(", ", ",") for text in row.ends or ()]


def deepest(texts: Iterable[str]) -> int:
    """Lines of the text that has the most; 0 without any."""
    return max((text.count("\n") + 1 for text in texts), default=0)


def draw_panel(axes: Axes, panel: Panel, chart: Chart) -> None:
    """One length."""
    style.apply(axes, panel.x, "x")
    axes.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
    axes.set_ylim(max(len(other.rows) for other in chart.panels) - 0.4, -0.6)
    style.name_rows(axes, panel.rows, [named(row) for row in panel.rows])
    style.guides(axes, panel.x, "x")
    for y, row in enumerate(panel.rows):
        for mark in row.marks:
            draw_mark(axes, row, mark, y + (offset(mark.series, len(chart.series)) if len(row.marks) > 1 else 0.0))
        axes.text(1.01, y, row.note, fontsize=6, va="center", transform=axes.get_yaxis_transform())
        for words, x, side in zip(meant(row), (0.0, 1.0), ("left", "right"), strict=False):
            sign = f"← {words}" if side == "left" else f"{words} →"
            axes.text(x, y - 0.12, sign, fontsize=5.5, color="0.35", ha=side, va="bottom",
                      transform=axes.get_yaxis_transform())  # fmt: skip


def offset(series: int, count: int) -> float:
    """How far from its row's middle a series is drawn [rows]."""
    return 0.0 if count < 2 else (series / (count - 1) - 0.5) * min(0.6, 0.22 * count)


def draw_mark(axes: Axes, row: Row, mark: Mark, y: float) -> None:
    """One value with its interval; beyond the axis, an arrow and the number."""
    colour = style.SERIES[mark.series % 8]
    low, high = axes.get_xlim()
    if not low <= mark.value <= high:
        right = mark.value > high
        axes.annotate(
            f"{mark.value:.3g} →" if right else f"← {mark.value:.3g}",
            (high if right else low, y), fontsize=6, color=colour, ha="right" if right else "left", va="center",
        )  # fmt: skip
        return
    control = row.role not in ("condition", "baseline")
    if mark.interval is not None:
        axes.plot(mark.interval, (y, y), color=colour, linewidth=1.1, alpha=0.45 if control else 1.0, clip_on=True)
    axes.plot(
        mark.value, y, marker=style.MARKERS[mark.series % 8], markersize=3.6, color=colour,
        markerfacecolor="white" if control else colour, linestyle="none",
    )  # fmt: skip
    if mark.reference is not None:
        axes.plot(mark.reference, y, marker="|", markersize=5, color=colour, linestyle="none")
