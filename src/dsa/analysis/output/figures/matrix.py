"""Rows by columns, each cell as dark as its value lies beyond what is allowed, on a logarithmic scale."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from dsa.analysis.output.figures.cells import colour_bar, draw_cells, new_cells
from dsa.analysis.output.figures.spec import Chart, Mark, Row

SHADES = ("#FCE3C8", "#F6B07A", "#E8853F", "#B4470B", "#6B2A00", "#260F00")
WITHIN = "#E3E9ED"
LEAST = 10.0  # margins that the scale spans at least


def draw_matrix(chart: Chart) -> Figure:
    """Conditions downwards, columns in the chart's order, the number of failures to the right.

    Raises:
        ValueError: the chart has nothing to show.
    """
    figure, axes = new_cells(chart)
    rows = max(len(panel.rows) for panel in chart.panels)
    colours = scale([mark for panel in chart.panels for row in panel.rows for mark in row.marks])
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_cells(axes_, panel, len(chart.series), rows, lambda mark: shade(colours, mark), failures)
        axes_.set_xlabel(panel.x.title, fontsize=8)
    meaning = chart.panels[0].y
    assert meaning is not None
    colour_bar(figure, axes, colours, meaning, below=True)
    return figure


def scale(marks: list[Mark]) -> ScalarMappable:
    """Colours from the margin to the worst value; below the margin there is one."""
    margin = max(mark.reference or 0.0 for mark in marks)
    worst = max(mark.value for mark in marks)
    shades = LinearSegmentedColormap.from_list("beyond", SHADES).with_extremes(under=WITHIN)
    return ScalarMappable(LogNorm(margin, max(worst, LEAST * margin)), shades)


def shade(colours: ScalarMappable, mark: Mark) -> object:
    """A cell's colour; what lies at or below the margin, or is negative, has not failed."""
    return colours.to_rgba(np.array([mark.value]))[0] if failed(mark) else WITHIN


def failed(mark: Mark) -> bool:
    """Whether a value lies beyond the margin."""
    assert mark.reference is not None
    return mark.value > mark.reference


def failures(row: Row) -> str:
    """How many of how many fail."""
    return f"{sum(map(failed, row.marks))}/{len(row.marks)}"
