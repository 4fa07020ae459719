"""Rows by columns, each cell as dark as its value lies beyond what is allowed."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row

ROW, COLUMN = 0.2, 0.11  # inches
STEPS = (1.0, 3.0, 10.0)  # in margins: from each on a cell is darker
SHADES = ("#E9EDF0", "#F6C9A8", "#E8853F", "#8F3D00")
MEANINGS = ("within the margin", "up to 3 margins", "up to 10 margins", "more than 10 margins")


def draw_matrix(chart: Chart) -> Figure:
    """Conditions downwards, columns in the chart's order, the number of failures to the right.

    Raises:
        ValueError: the chart has nothing to show.
    """
    rows = max((len(panel.rows) for panel in chart.panels), default=0)
    names = [style.fit(row.label) for panel in chart.panels for row in panel.rows]
    width = max(1.6, COLUMN * len(chart.series)) + 0.9 + style.width_of_labels(names)
    figure, axes = style.new_figure(chart, len(chart.panels), width, 1.35 + ROW * rows)
    for axes_, panel in zip(axes, chart.panels, strict=True):
        draw_panel(axes_, panel, len(chart.series), rows)
    handles = [Patch(color=shade, label=meaning) for shade, meaning in zip(SHADES, MEANINGS, strict=True)]
    style.legend_below(figure, handles, most=4)
    return figure


def draw_panel(axes: Axes, panel: Panel, columns: int, rows: int) -> None:
    """One length."""
    axes.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
    for y, row in enumerate(panel.rows):
        for mark in row.marks:
            axes.add_patch(Rectangle((mark.series - 0.46, y - 0.44), 0.92, 0.88, color=SHADES[step(mark)], linewidth=0))
        axes.text(columns - 0.2, y, failures(row), fontsize=6, va="center")
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_xlabel(panel.x.title, fontsize=8)
    axes.set_yticks(range(len(panel.rows)), [style.fit(row.label) for row in panel.rows], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for row, text in zip(panel.rows, axes.get_yticklabels(), strict=True):
        text.set_color(style.colour_of(row.role, "black"))


def step(mark: Mark) -> int:
    """How dark a value is drawn: the number of steps that it lies beyond."""
    assert mark.reference is not None
    return sum(mark.value > factor * mark.reference for factor in STEPS)


def failures(row: Row) -> str:
    """How many of how many fail."""
    return f"{sum(step(mark) > 0 for mark in row.marks)}/{len(row.marks)}"
