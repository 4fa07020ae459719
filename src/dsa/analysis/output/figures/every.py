"""All figures of a study, as charts and as files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from dsa.analysis.inputs.cost import COSTS
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures import (
    budgets,
    cost,
    curves,
    differences,
    failures,
    formats,
    layers,
    pairs,
    pareto,
    quality,
    recovered,
    regret,
    seeds,
    times,
)
from dsa.analysis.output.figures.bars import draw_bars
from dsa.analysis.output.figures.dots import draw_dots
from dsa.analysis.output.figures.forest import draw_forest
from dsa.analysis.output.figures.heat import draw_heat
from dsa.analysis.output.figures.lines import draw_lines
from dsa.analysis.output.figures.matrix import draw_matrix
from dsa.analysis.output.figures.scatter import draw_scatter
from dsa.analysis.output.figures.spec import Chart
from dsa.analysis.output.replaced import replaced

FOLDER = "figures"
DRAW: dict[str, Callable[[Chart], Figure]] = {
    "dots": draw_dots,
    "forest": draw_forest,
    "heat": draw_heat,
    "bars": draw_bars,
    "lines": draw_lines,
    "matrix": draw_matrix,
    "scatter": draw_scatter,
}


def charts(analysis: Analysis) -> list[Chart]:
    """Every figure in the order of the report; those without panels say in their caption what is missing."""
    return [
        differences.contrasts(analysis),
        differences.chart(analysis),
        seeds.chart(analysis),
        failures.success(analysis),
        failures.matrix(analysis),
        quality.chart(analysis, "nats"),
        quality.chart(analysis, "share"),
        recovered.chart(analysis),
        *(pareto.chart(analysis, name) for name in COSTS),
        pairs.chart(analysis),
        budgets.chart(analysis),
        regret.chart(analysis),
        formats.chart(analysis),
        times.chart(analysis),
        cost.chart(analysis),
        layers.chart(analysis, "mass"),
        layers.chart(analysis, "recall"),
        layers.chart(analysis, "mean_k"),
        *curves.charts(analysis),
    ]


def draw(chart: Chart) -> Figure:
    """A chart as a matplotlib figure.

    Raises:
        ValueError: it has nothing to show.
    """
    return DRAW[chart.kind](chart)


def save(chart: Chart, folder: Path) -> list[Path]:
    """Write <name>.png and <name>.svg, each in one rename; a chart without panels has none, nor any of before."""
    files = [folder / f"{chart.name}.{ending}" for ending in ("png", "svg")]
    if not chart.panels:
        for file in files:
            file.unlink(missing_ok=True)
        return []
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw(chart)
    png = partial(figure.savefig, format="png")
    svg = partial(figure.savefig, format="svg", metadata={"Date": None})
    paths = [replaced(files[0], png)]
    figure.set_layout_engine("none")  # all has its place now, and finding it takes as long as drawing
    return [*paths, replaced(files[1], svg)]
