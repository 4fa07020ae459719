"""Rows of many values each: a cell for each, as bright as it is large."""

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.cells import colour_bar, draw_cells, new_cells
from dsa.analysis.output.figures.spec import Chart, Row

EVERY = 5  # columns from one that is named to the next


def draw_heat(chart: Chart) -> Figure:
    """Conditions downwards, one column a series, the mean of each row to the right.

    Raises:
        ValueError: the chart has nothing to show.
    """
    figure, axes = new_cells(chart)
    rows = max(len(panel.rows) for panel in chart.panels)
    every = [mark.value for panel in chart.panels for row in panel.rows for mark in row.marks]
    colours = ScalarMappable(Normalize(min(every), max(every)), colormaps["viridis"])
    named = range(0, len(chart.series), EVERY)
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_cells(axes_, panel, len(chart.series), rows, lambda mark: colours.to_rgba(np.array([mark.value]))[0], mean)
        axes_.set_xticks(named, [chart.series[column] for column in named], fontsize=6)
    colour_bar(figure, axes, colours, chart.panels[0].x, below=False)
    return figure


def mean(row: Row) -> str:
    """Over all columns."""
    return style.short(sum(mark.value for mark in row.marks) / len(row.marks))
