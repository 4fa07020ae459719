"""Rows by columns of coloured cells, and what their colours mean."""

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Axis, Chart, Mark, Panel, Row

COLUMN = 0.11  # inches


def new_cells(chart: Chart) -> tuple[Figure, list[Axes]]:
    """A figure with room for a cell in every row and column.

    Raises:
        ValueError: the chart has nothing to show.
    """
    figure, axes, _ = style.figure_of_rows(chart, max(1.6, COLUMN * len(chart.series)) + 0.9, 1.75)
    return figure, axes


def draw_cells(
    axes: Axes, panel: Panel, columns: int, rows: int, colour: Callable[[Mark], object], told: Callable[[Row], str]
) -> None:
    """One length.

    Args:
        rows: of the panel with the most.
        colour: of a cell.
        told: what stands to the right of a row.
    """
    axes.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
    for y, row in enumerate(panel.rows):
        for mark in row.marks:
            box = (mark.series - 0.46, y - 0.44)
            axes.add_patch(Rectangle(box, 0.92, 0.88, facecolor=colour(mark), linewidth=0))
        axes.text(columns - 0.2, y, told(row), fontsize=6, va="center")
    axes.set_xlim(-0.6, columns - 0.4)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xticks([])
    axes.set_yticks(range(len(panel.rows)), [style.fit(row.label) for row in panel.rows], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    for row, text in zip(panel.rows, axes.get_yticklabels(), strict=True):
        text.set_color(style.colour_of(row.role, "black"))


def colour_bar(figure: Figure, axes: list[Axes], colours: ScalarMappable, axis: Axis, below: bool) -> None:
    """What the colours mean, under the panels.

    Args:
        below: whether there is a colour for all that lies below the scale.
    """
    bar = figure.colorbar(
        colours, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02, extend="min" if below else "neither"
    )
    bar.set_label(axis.title, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.xaxis.set_major_formatter(style.Distinct())
    bar.ax.xaxis.minorticks_off()
