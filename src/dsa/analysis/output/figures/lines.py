"""Courses over steps or settings, one panel a length."""

from matplotlib.figure import Figure

from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.spec import Chart


def draw_lines(chart: Chart) -> Figure:
    """Conditions in colour, controls grey and dashed, the baseline thick; few points with their intervals.

    Raises:
        ValueError: the chart has nothing to show.
    """
    names = list(dict.fromkeys(line.label for panel in chart.panels for line in panel.lines))
    columns = 3 if len(chart.panels) < 2 else 6
    rows = -(-len(names) // columns)
    figure, axes = style.new_figure(chart, len(chart.panels), 3.6, 2.9 + 0.14 * rows)
    drawn = {}
    alike = len({panel.y and panel.y.title for panel in chart.panels}) == 1
    for axes_, panel in zip(axes, chart.panels, strict=True):
        assert panel.y is not None
        for line in panel.lines:
            place = names.index(line.label)
            dash = style.DASHES[0 if line.role == "baseline" else place // 5 % 4]
            colour = style.colour_of(line.role, style.LINES[place % 5])
            drawn[line.label], = axes_.plot(
                line.x, line.y, label=style.fit(line.label), color=colour,
                linestyle=style.CONTROL_DASHES.get(line.role, dash),
                linewidth=2.0 if line.role == "baseline" else 1.0,
                marker=style.CONTROL_MARKERS.get(line.role, "o") if line.marked else "", markersize=4,
            )  # fmt: skip
            if line.marked:
                axes_.vlines(line.x, line.low, line.high, color=colour, linewidth=1.0, alpha=0.6)
        axes_.set_title(style.fit(panel.name, 48), fontsize=8, loc="left")
        style.apply(axes_, panel.x, "x")
        style.apply(axes_, panel.y, "y", label=axes_ is axes[0] or not alike)
        style.guides(axes_, panel.y, "y")
        axes_.grid(color="0.92", linewidth=0.6)
    style.legend_below(figure, list(drawn.values()), columns, fontsize=6.5)
    return figure
