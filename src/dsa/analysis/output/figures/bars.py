"""Parts of a whole side by side, one panel a length."""

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart


def draw_bars(chart: Chart) -> Figure:
    """Conditions downwards, each bar its parts in order, with its share of the reference.

    Raises:
        ValueError: the chart has nothing to show.
    """
    figure, axes, rows = style.figure_of_rows(chart, width=2.8, height=1.4)
    for axes_, panel in zip(axes, chart.panels, strict=True):
        axes_.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
        longest = max(sum(mark.value for mark in row.marks) for row in panel.rows)
        for y, row in enumerate(panel.rows):
            left = 0.0
            for mark in row.marks:
                axes_.barh(y, mark.value, 0.7, left=left, color=style.SERIES[mark.series % 8])
                left += mark.value
            whole = row.marks[0].reference
            if whole:
                axes_.text(left + 0.01 * longest, y, f"{left / whole:.0%}", fontsize=6, va="center")
        style.apply(axes_, panel.x, "x")
        axes_.set_xlim(0, longest * 1.16)
        axes_.set_ylim(rows - 0.4, -0.6)
        axes_.set_yticks(range(len(panel.rows)), [style.fit(row.label) for row in panel.rows], fontsize=7)
        axes_.tick_params(axis="y", length=0)
        for row, text in zip(panel.rows, axes_.get_yticklabels(), strict=True):
            text.set_color(style.colour_of(row.role, "black"))
    handles = [Patch(color=style.SERIES[i % 8], label=name) for i, name in enumerate(chart.series)]
    style.legend_below(figure, handles, most=4)
    return figure
