"""Rows of many values, each a dot in the colour of its series."""

import colorsys

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart, Panel

SPREAD = 0.5  # of a row's height, over which its dots lie [rows]


def draw_dots(chart: Chart) -> Figure:
    """Conditions downwards, controls below a line; each row's note to its right.

    Raises:
        ValueError: the chart has nothing to show.
    """
    figure, axes, rows = style.figure_of_rows(chart, width=3.2, height=1.2)
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_panel(axes_, panel, rows, len(chart.series))
    return figure


def draw_panel(axes: Axes, panel: Panel, rows: int, series: int) -> None:
    """One length."""
    style.apply(axes, panel.x, "x")
    assert panel.x.limits is not None
    for y, row in enumerate(panel.rows):
        x = [min(max(mark.value, panel.x.limits[0]), panel.x.limits[1]) for mark in row.marks]
        places = [y + SPREAD * (mark.series / max(1, series - 1) - 0.5) for mark in row.marks]
        axes.scatter(x, places, c=[colour(mark.series, series) for mark in row.marks], s=7, linewidths=0)
        axes.text(1.01, y, row.note, fontsize=6, va="center", transform=axes.get_yaxis_transform())
    axes.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
    axes.set_ylim(rows - 0.4, -0.6)
    style.name_rows(axes, panel.rows, [style.fit(row.label) for row in panel.rows])
    style.guides(axes, panel.x, "x")


def colour(series: int, count: int) -> tuple[float, float, float]:
    """From violet over green to orange, each about as light, so that all are seen on light and on dark."""
    return colorsys.hls_to_rgb((265 - 245 * series / max(1, count - 1)) / 360, 0.5, 0.65)
