"""report.html: one file that needs no network, from an analysis."""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from dsa.analysis.inputs.commands import study_commands
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.hypothesis import claim_of
from dsa.analysis.output.figures.spec import Chart
from dsa.analysis.output.replaced import replaced
from dsa.analysis.output.report.answer import opening, picture, unit_of
from dsa.analysis.output.report.glossary import glossary
from dsa.analysis.output.report.grid import grids
from dsa.analysis.output.report.overview import columns, overviews
from dsa.analysis.output.report.pictures import pictures
from dsa.analysis.output.report.provenance import facts, missing, warnings
from dsa.analysis.output.report.use import use
from dsa.artifacts.finite import finite

REPORT = "report.html"
DIGITS = 6


def write_report(analysis: Analysis, drawn: list[Chart], folder: Path) -> Path:
    """Write report.html into a study's folder; its path.

    Args:
        drawn: the figures' charts, as `figures.every.charts` gives them.

    Raises:
        OSError: the folder cannot be written.
    """
    text = page(analysis, drawn)
    return replaced(folder / REPORT, lambda path: path.write_text(text, encoding="utf-8"))


def page(analysis: Analysis, drawn: list[Chart]) -> str:
    """The whole page. Every name is escaped, in text and inside the embedded data."""
    prepared = analysis.prepared
    applicable = [gap for gap in prepared.gaps if gap.state != "not applicable"]
    first = picture(analysis, drawn)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(resource("page.html"))
    return template.render(
        meta=prepared.meta,
        scale=SCALES[prepared.meta.metric],
        analysis=analysis,
        finished=len(prepared.runs),
        planned=len(prepared.runs) + len(applicable),
        charts=[chart for chart in drawn if chart is not first],
        first=first,
        opening=opening(analysis),
        unit=unit_of(analysis),
        claim=claim_of(prepared.meta),
        use=use(analysis),
        columns=columns(analysis),
        overviews=overviews(analysis),
        grids=grids(analysis),
        glossary=glossary(analysis),
        guards=[guard for guard in analysis.guards if guard.name not in ("missing runs", "failed runs")],
        missing=missing(prepared),
        warnings=warnings(prepared),
        facts=facts(prepared),
        pictures=pictures(analysis),
        commands=study_commands(prepared.meta),
        style=Markup(resource("report.css")),
        script=Markup(resource("report.js")),
        data=embedded([asdict(chart) for chart in drawn]),
    )


def resource(name: str) -> str:
    return files("dsa.analysis.output.report").joinpath(name).read_text(encoding="utf-8")


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a script element: it can neither close it nor open a comment."""
    text = json.dumps(rounded(finite(value)), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def rounded(value: Any) -> Any:
    """The same data with as many digits as a figure can show."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
