"""One study's folder among the findings: its results, tables and figures, and a page that shows them."""

from functools import partial
from pathlib import Path

import pandas as pd

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.output.figures.every import charts, draw
from dsa.analysis.output.figures.spec import Chart
from dsa.analysis.output.replaced import replaced
from dsa.analysis.output.report.answer import claimed, of_turns, opening, picture, unit_of
from dsa.analysis.output.report.glossary import Entry, glossary
from dsa.analysis.output.report.use import use
from dsa.analysis.output.spreadsheet import for_spreadsheets
from paper import tables
from paper.markdown import framed
from paper.source import Study, save

FIGURES = (
    "contrasts", "differences", "seeds", "success", "failures", "regret", "format_error", "keys_per_pair",
    "budget_excess", "times", "quality", "accuracy", "recovered", "pareto_indexer_params", "pareto_flops",
    "pareto_step_ms", "mass",
)  # fmt: skip
DPI = 130


def write_study(study: Study, folder: Path) -> None:
    """Write a study's folder; tables and figures of an earlier writing that now have nothing to show are gone."""
    save(study, folder)
    analysis = study.analysis
    frames = {name: table(analysis) for name, table in tables.TABLES.items()}
    frames["times"] = tables.times(analysis, study.times)
    for name, frame in frames.items():
        if len(frame):
            replaced(folder / f"{name}.csv", partial(for_spreadsheets(frame).to_csv, index=False, float_format="%.6g"))
        else:
            (folder / f"{name}.csv").unlink(missing_ok=True)
    drawn = figures(study, folder)
    for name in {f"{name}.png" for name in FIGURES} - {name for name, _, _ in drawn}:
        (folder / name).unlink(missing_ok=True)
    replaced(folder / "README.md", lambda path: path.write_text(page(study, frames, drawn)))


def figures(study: Study, folder: Path) -> list[tuple[str, str, str]]:
    """Draw the main figures that have something to show, the one that shows the answer first: file, title, caption."""
    out = []
    first = shown(study.analysis)
    for chart in sorted(drawable(study.analysis), key=lambda chart: chart != first):
        name = f"{chart.name}.png"
        replaced(folder / name, partial(draw(chart).savefig, format="png", dpi=DPI))
        out.append((name, chart.title, chart.caption))
    return out


def drawable(analysis: Analysis) -> list[Chart]:
    """The main figures that have something to show."""
    return [chart for chart in charts(analysis) if chart.name in FIGURES and chart.panels]


def shown(analysis: Analysis, name: str | None = None) -> Chart | None:
    """The figure that shows the answer, or that of a name if there is one; None where nothing can be drawn."""
    drawn = drawable(analysis)
    return next((chart for chart in drawn if chart.name == name), picture(analysis, drawn))


def page(study: Study, frames: dict, drawn: list[tuple[str, str, str]]) -> str:
    """The study's own page."""
    analysis = study.analysis
    meta, runs, gaps = analysis.prepared.meta, analysis.prepared.runs, analysis.prepared.gaps
    primary = meta.metric
    grid = use(analysis)
    costs = pd.DataFrame([[cell.text for cell in row] for row in grid.rows], columns=list(grid.columns))
    pictures = [f"![{title}]({name})\n\n{caption}" for name, title, caption in drawn]
    parts = [
        f"# {meta.name}",
        meta.question,
        f"**{opening(analysis)}**",
        *filter(None, [unit_of(analysis)]),
        *pictures[:1],
        f"## {grid.title}\n\n{framed(costs)}\n\n{grid.note}",
        f"## How it was decided\n\nClaimed beforehand: {claimed(analysis)}. **{analysis.answer}**: {analysis.sentence}",
        f"{len(runs)} of {len(runs) + len(gaps)} planned runs finished. Made by commit "
        f"{', '.join(study.commits) or 'unknown'}. The verdict rests on {rests_on(analysis)}.",
        *(f"- {guard.name}: {guard.sentence}" for guard in analysis.guards if guard.name not in ("missing runs",)),
        *pictures[1:],
    ]
    headings = {
        "best": "What to use per length",
        "contrasts": f"Planned contrasts on `{primary}`, corrected over all of them",
        "regret": f"Regret on `{primary}`: what one condition loses against the best of each length",
        "quality": f"Quality on `{primary}`: mean and 95 % BCa interval over seeds",
        "comparisons": f"Against the baseline on `{primary}`: the sign-flip test decides, Holm within a length",
        "by_row": f"Over other held-out rows too, on `{primary}`: intervals of other seeds and other rows",
        "confirmation": "After joint training",
        "scaling": "How it grows: slope for each doubling, mean over seeds and 95 % t interval; of a cost its exponent",
        "times": "Times taken alone, in turns: medians [ms]",
    }
    for name, heading in headings.items():
        frame = frames[name]
        if "metric" in frame and name != "confirmation":
            frame = frame[frame["metric"] == primary].drop(columns="metric")
        if len(frame):
            parts.append(f"## {heading}\n\n{framed(tables.joined(frame))}\n\nAll of it: [{name}.csv]({name}.csv)")
    parts.append("## Words\n\n" + "\n".join(line_of(entry) for entry in glossary(analysis)))
    return "\n\n".join(parts) + "\n"


def rests_on(analysis: Analysis) -> str:
    """What the verdict is about, in words."""
    if of_turns(analysis):
        return "times of a training step, whatever any scale of quality says"
    return f"`{analysis.prepared.meta.metric}`; the other scales stand beside it"


def line_of(entry: Entry) -> str:
    """A word of the glossary."""
    fields = f" In tables: {', '.join(f'`{name}`' for name in entry.fields)}." if entry.fields else ""
    return f"- **{entry.name}**{f' [{entry.unit}]' if entry.unit else ''}: {entry.meaning}.{fields}"
