"""What the report's pictures show: planted failures, budgets, formats, lengths; and nothing where there is nothing."""

from dataclasses import replace
from typing import Any

import pytest
from made_up import CONTROLS, made_up

from dsa.analysis.inputs.heads import heads_of
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.judgement.analysis import Analysis, analyse
from dsa.analysis.output.figures import budgets, failures, formats, layers, pareto, regret, seeds
from dsa.analysis.output.figures.every import charts, draw
from dsa.analysis.output.figures.matrix import WITHIN, failed, scale, shade
from dsa.analysis.output.figures.matrix import failures as told
from dsa.analysis.statistics.intervals import share_interval

pytestmark = pytest.mark.slow
FAILED = {3, 5}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def unlucky(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """One head fails in two seeds, in one of them badly."""
    if run["label"] != "h1d16" or run["seed"] not in FAILED:
        return result
    return result | {"val_loss": result["val_loss"] + (0.02 if run["seed"] == 5 else 2.0)}


@pytest.fixture(scope="module")
def failing() -> Analysis:
    losses = dict.fromkeys(("h4d64", "h1d16", "h2d32"), 1.0)
    return analyse(made_up(losses, noise=0.0005, seeds=6, each=unlucky))


def conditions(prepared: Prepared, own: dict[str, dict[str, Any]], **common: Any) -> Prepared:
    return replace(prepared, meta=replace(prepared.meta, conditions=own, common=common))


def test_success_is_a_share_of_seeds_with_its_exact_interval_ordered_by_heads(failing):
    (panel,) = failures.success(failing).panels
    assert [row.label for row in panel.rows] == ["h1d16", "h2d32", "h4d64"]
    assert failures.success(failing).series == ("1 head", "2 heads", "4 heads")
    (mark,) = panel.rows[0].marks
    assert mark.value == pytest.approx(4 / 6) and mark.interval == share_interval(4, 6)
    assert [row.marks[0].value for row in panel.rows[1:]] == [1.0, 1.0]
    assert [row.marks[0].series for row in panel.rows] == [0, 1, 2]
    assert [row.note for row in panel.rows] == ["4/6", "6/6", "6/6"]
    assert "within the margin of 0.01 nats of the oracle's" in failures.success(failing).caption


def test_heads_are_those_of_the_option_or_the_setting():
    meta = made_up({"h3d8": 1.0, "mine": 1.0}, seeds=1).meta
    assert [heads_of(meta, label) for label in ("h3d8", "mine")] == [3, None]
    changed = replace(meta, common={"indexer.heads": 7})
    assert heads_of(changed, "mine") == 7


def test_failures_stand_where_they_were_planted(failing):
    chart = failures.matrix(failing)
    (panel,) = chart.panels
    assert chart.series[:2] == ("seed 3", "seed 5"), "the seeds that fail stand first"
    rows = {row.label: row for row in panel.rows}
    marks = rows["h1d16"].marks
    assert [failed(mark) for mark in marks] == [True, True, False, False, False, False]
    colours = scale([mark for row in panel.rows for mark in row.marks])
    badly, barely = (sum(shade(colours, mark)[:3]) for mark in marks[:2])
    assert badly < barely < 3 and shade(colours, marks[2]) == WITHIN, "the further beyond the margin, the darker"
    assert [told(rows[label]) for label in ("h1d16", "h2d32", "h4d64")] == ["2/6", "0/6", "0/6"]


def test_every_seed_has_a_dot_of_its_own_colour_where_its_excess_lies(failing):
    chart = seeds.chart(failing)
    (panel,) = chart.panels
    rows = {row.label: row for row in panel.rows}
    assert list(rows) == ["h4d64", "h1d16", "h2d32", "random", "window"], "the oracle has no excess, dense no budget"
    assert rows["h4d64"].role == "baseline" and chart.series == tuple(f"seed {n}" for n in range(6))
    assert [mark.series for mark in rows["h1d16"].marks] == list(range(6))
    assert rows["h1d16"].marks[3].value == pytest.approx(2.0, abs=0.01) and rows["h1d16"].note == "2/6"
    assert panel.x.log and panel.x.guides == (0.01,), "the margin is drawn"
    (axes,) = draw(chart).axes
    dots = dict(zip(rows, axes.collections, strict=True))["h1d16"]
    drawn = [x for x, _ in dots.get_offsets()]
    assert drawn[3] == rows["h1d16"].marks[3].value and min(drawn) >= panel.x.limits[0], "0 and less lie at the edge"
    assert len({tuple(colour) for colour in dots.get_facecolors()}) == 6


def test_without_an_oracle_a_margin_or_a_decision_no_seed_is_said_to_fail():
    losses = {"h4d64": 1.0, "h1d16": 1.0}
    lacking = {kind: loss for kind, loss in CONTROLS.items() if kind != "oracle"}
    blind = dict.fromkeys(CONTROLS, 1.0)
    for changes in ({"controls": lacking}, {"margin": {}}, {"controls": blind}):
        done = analyse(made_up(losses, seeds=3, **changes))
        assert failures.success(done).panels == failures.matrix(done).panels == ()
        assert bool(seeds.chart(done).panels) == (changes == {"margin": {}}), (
            "without a margin there is an excess still"
        )


def test_regret_has_a_mark_for_each_length_and_none_for_one_length():
    losses = {"a": {64: 1.1, 128: 1.3}, "b": 1.2}
    done = analyse(made_up(losses, lengths=(64, 128), seeds=3))
    chart = regret.chart(done)
    assert chart.series == ("at 64 tokens", "at 128 tokens")
    drawn = {row.label: [mark.value for mark in row.marks] for row in chart.panels[0].rows}
    assert drawn == {one.label: list(one.by_length.values()) for one in done.regret}
    assert drawn["a"][0] == drawn["b"][1] == 0 and drawn["a"][1] == pytest.approx(0.1, abs=0.01)
    assert regret.chart(analyse(made_up({"a": 1.1, "b": 1.2}, seeds=3))).panels == ()


def rounded(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    errors = {"a": 0.0, "a4": 0.1, "b": 0.0, "b4": 0.2}
    return result | {"selection": {"mean": {"quantisation_error": errors.get(run["label"], 0.0)}}}


def test_a_format_is_set_against_exact_scores_of_its_own_composition():
    made = made_up({"a": 1.0, "a4": 1.0, "b": 1.2, "b4": 1.5}, seeds=4, noise=0.0, each=rounded)
    own = {
        label: {"indexer": label[0], "precision": "int4" if "4" in label else "fp32"} for label in made.meta.conditions
    }
    panels = formats.chart(analyse(conditions(made, own))).panels
    assert [panel.name for panel in panels] == ["length 64, against a", "length 64, against b"]
    assert [[spot.label for spot in panel.spots] for panel in panels] == [["a4"], ["b4"]]
    spots = {spot.label: spot for panel in panels for spot in panel.spots}
    assert {label: spot.x for label, spot in spots.items()} == {"a4": 0.1, "b4": 0.2}
    assert spots["a4"].y == pytest.approx(0.0) and spots["b4"].y == pytest.approx(0.3)
    assert spots["b4"].note.startswith("less b,") and panels[1].y.guides == (-0.01, 0.0, 0.01)
    assert formats.chart(analyse(made)).panels == (), "none has the same composition exact"


def kept(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return result | {"mean_k": {"k2": 2.0, "k8": 8.0}.get(run["label"], 4.0)}


def test_excess_stands_against_the_budget_per_pair_with_the_controls():
    made = made_up({"k2": 1.4, "k8": 1.01}, seeds=4, each=kept)
    own = {label: {"selector.k": label[1:]} for label in made.meta.conditions}
    (panel,) = budgets.chart(analyse(conditions(made, own, **{"data.pairs": "${share:1/16}"}))).panels
    spots = {spot.label: spot for spot in panel.spots}
    assert {label: spots[label].x for label in ("k2", "k8", "window")} == {"k2": 0.5, "k8": 2.0, "window": 1.0}
    assert spots["k2"].y == pytest.approx(0.4, abs=0.01) and "oracle" not in spots and "dense" not in spots
    (panel,) = budgets.chart(analyse(conditions(made, own))).panels
    assert {spot.label: spot.x for spot in panel.spots}["k8"] == 8 / 64 and "share of the length" in panel.x.label


def test_one_budget_has_no_picture():
    assert budgets.chart(analyse(made_up({"a": 1.0, "b": 1.1}, seeds=3))).panels == ()


def test_dense_oracle_and_sink_window_are_never_off_the_scale():
    controls = {"dense": 1.0, "oracle": 1.0, "window": 9.0, "random": 9.0, "sink_window": 3.0}
    done = analyse(made_up({"a": 1.10, "b": 1.11}, seeds=3, controls=controls))
    (panel,) = pareto.chart(done, "flops").panels
    shown = {spot.label for spot in panel.spots}
    assert {"dense", "oracle", "sink_window"} <= shown and "window" in panel.note


def test_each_can_be_drawn(failing):
    shown = {chart.name: chart for chart in charts(failing) if chart.panels}
    assert {"success", "failures", "differences"} <= shown.keys()
    for name in ("success", "failures", "differences"):
        draw(shown[name]).draw_without_rendering()


@pytest.mark.parametrize(("joint", "words"), [(None, "backbone untouched"), ("abc", "after joint training")])
def test_what_layers_capture_says_of_which_model(joint, words):
    told = {"artifacts": {"joint": joint}, "selection": {"layers": [{"mass": 0.5, "oracle_mass": 0.9}]}}
    study = analyse(made_up({"a": 1.0, "b": 1.0}, seeds=2, each=lambda run, result: result | told))
    chart = layers.chart(study, "mass")
    assert words in chart.caption and {row.label for row in chart.panels[0].rows} >= {"a", "b"}
