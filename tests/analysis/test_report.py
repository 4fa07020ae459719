"""The report of a study: what it says, and that names cannot break it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import jsonschema
import pytest
from made_up import made_up
from study_folder import write_study

from dsa.analysis.inputs.commands import command, overrides
from dsa.analysis.judgement.analysis import Analysis, analyse, analyse_folder
from dsa.analysis.output.figures import style
from dsa.analysis.output.figures.every import charts, draw
from dsa.analysis.output.files import record, write
from dsa.analysis.output.report.page import embedded, page, resource

pytestmark = pytest.mark.slow

EVIL = "<script>alert(1)</script>"
NASTY = '</script><img src=x onerror="boom()">$x$'
SCHEMA = json.loads(files("dsa.analysis.output").joinpath("verdict.schema.json").read_text())


def schema_errors(verdict: dict) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(verdict)]


class Seen(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Analysis:
    """Two conditions with names that try to break out, one of which has no run at 256."""
    folder = write_study(
        tmp_path_factory.mktemp("small") / "made_up",
        [EVIL, NASTY],
        seeds=3,
        margin={"val_loss": 0.01, "val_accuracy": 0.01},
        unfinished=lambda run: run["seq_len"] == 256 and run["label"] == NASTY,
    )
    return analyse_folder(folder)


@pytest.fixture(scope="module")
def text(small) -> str:
    return page(small, charts(small))


def test_a_verdict_meets_the_shipped_schema():
    verdict = record(analyse(made_up({"a": 1.2, "b": 1.1}, seeds=3)))
    assert schema_errors(json.loads(json.dumps(verdict))) == []
    assert schema_errors(verdict | {"verdict": "perhaps"})
    assert schema_errors(verdict | {"surprise": 1})


def test_names_are_text_wherever_they_stand(text):
    seen = Seen(text)
    scripts = [attributes for tag, attributes in seen.tags if tag == "script"]
    assert [a.get("type") for a in scripts] == ["application/json", None]
    assert not [a for tag, a in seen.tags if tag == "img" and not str(a.get("src")).startswith("data:")]
    assert not [name for _, a in seen.tags for name in a if name.startswith("on")]
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL).group(1))
    assert {row["label"] for chart in data for panel in chart["panels"] for row in panel["rows"]} >= {EVIL, NASTY}


def test_embedded_data_cannot_close_its_element():
    text = str(embedded({"a": "</script><!--<script>&\u2028", "b": float("nan"), "c": 1 / 3}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--<script>&\u2028", "b": None, "c": 0.333333}


def test_nothing_is_loaded_from_elsewhere(text):
    assert "default-src 'none'" in text
    code = text.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|sendBeacon", code)


def test_what_is_missing_is_told(text):
    assert "33 of 36 planned runs finished" in text
    assert "What to know" in text and "0123456789ab" in text and "dsa report outputs" in text
    gaps = text[text.index("Missing and failed runs") :]
    assert ">0, 1, 2<" in gaps and "missing" in gaps


def test_a_study_without_any_run_has_a_report(tmp_path):
    folder = write_study(tmp_path / "made_up", ["a", "b"], seeds=2, unfinished=lambda run: True)
    paths = write(analyse_folder(folder), folder)
    assert {path.name for path in paths} == {"verdict.json", "results.csv", "results.parquet", "report.html"}
    text = (folder / "report.html").read_text()
    assert "nothing is recommended" in text and "No run has finished yet" in text
    assert schema_errors(json.loads((folder / "verdict.json").read_text())) == []
    assert not (folder / "figures").exists()


def test_a_run_has_its_command(small):
    told = command(small.prepared, EVIL, 128)
    assert told == (
        f"dsa train 'indexer={EVIL}' model=tiny selector=topk selector._target_=x selector.k=8 seq_len=128 seed=0 "
        "dtype=fp32"
    )
    config = {
        "choices": {"optimizer": "x"},
        "overridden": ["optimizer"],
        "optimizer": {"betas": [0.9, 1], "fused": None},
    }
    assert overrides(config) == ["optimizer=x", "optimizer.betas=[0.9,1]", "optimizer.fused=null"]


def test_speed_is_ranked_by_turns_taken_alone(tmp_path):
    folder = write_study(tmp_path / "made_up", ["a", "b"], lengths=(128,), seeds=3)
    steps = {"a": 20.0, "b": 10.0}
    times = {label: [{"step_ms": ms + 0.1 * turn} for turn in range(5)] for label, ms in steps.items()}
    for contended, found in ((False, steps), (True, {})):
        medians = {k: {"step_ms": v} for k, v in steps.items()}
        record_ = {"contended": contended, "processes": 5, "turns": times, "times": medians}
        (folder / "timing.json").write_text(json.dumps({"128": record_}))
        for path in folder.glob("*/result.json"):
            result = json.loads(path.read_text())
            result["time"]["contended"] = True
            path.write_text(json.dumps(result))
        points = [p for p in analyse_folder(folder).points if p.cost == "step_ms"]
        assert {p.label: p.price for p in points} == pytest.approx({k: v + 0.2 for k, v in found.items()})


def test_every_figure_is_drawn_with_its_axes_named(small):
    drawn = charts(small)
    shown = {chart.name: draw(chart) for chart in drawn if chart.panels}
    assert set(shown) >= {
        "differences", "success", "failures",
        "quality", "accuracy", "recovered", "pareto_flops", "pareto_step_ms", "pareto_indexer_params",
        "pareto_memory_mb", "cost", "mass", "recall", "budget", "curves_warmup", "curves_sparse",
    }  # fmt: skip
    for figure in shown.values():
        figure.draw_without_rendering()
        assert all(axes.get_xlabel() for axes in figure.axes)


def test_resources_are_shipped():
    assert all(resource(name) for name in ("page.html", "report.css", "report.js"))


def test_the_answer_stands_first_with_what_to_know_and_one_row_for_everything(text):
    order = ["What to use", "What to know before believing this", "Everything at a glance", "<h2>Figures</h2>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    cells = re.findall(r'<td data-label="([^"]+)"', text[text.index("Everything at a glance") :])
    assert {
        "beside dense",
        "seeds beyond margin",
        "operations (dense = 100 %)",
        "step time (of dense)",
        "verdict",
    } <= set(cells)
    rows = re.search(r'<table class="cards">.*?</table>', text, re.DOTALL).group(0)
    assert "<small>best measured, no more</small>" in rows and ">recommended<" not in rows, "too few seeds"
    assert re.search(r'<th scope="row">dense</th>.*?100 %', rows, re.DOTALL), (
        "dense attention's own cost is in the table"
    )


def test_no_legend_or_title_is_cut(small):
    for chart in charts(small):
        if not chart.panels:
            continue
        for panels in (chart.panels, chart.panels[:1]):
            figure = draw(replace(chart, panels=panels))
            figure.draw_without_rendering()
            width = figure.get_figwidth() * figure.dpi
            for part in (*figure.legends, *figure.texts):
                box = part.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= width, f"{chart.name}: {part}"


def test_axes_whose_scale_depends_on_the_values_say_which_it_is(small):
    drawn = {chart.name: chart for chart in charts(small)}
    for name in ("quality", "pareto_flops"):
        assert all(panel.x.title.endswith(" scale") for panel in drawn[name].panels)
    assert not drawn["recovered"].panels or not drawn["recovered"].panels[0].x.title.endswith(" scale")


def test_no_condition_has_the_baselines_colour_in_a_course(small):
    assert style.VERMILION not in style.LINES and style.ORANGE not in style.LINES


def test_a_verdict_of_many_comparisons_names_them_and_keeps_to_a_line():
    done = analyse(made_up({"a": 1.2, "b": 1.3, "c": 1.3, "d": 1.3, "e": 1.1}))
    assert done.sentence == "Worse than a at 64: b, c, d. Better than a at 64: e."
