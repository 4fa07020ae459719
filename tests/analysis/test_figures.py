"""How figures are drawn: what matters can be read beside what is large, every point has its name, nothing is cut."""

from dataclasses import replace

import pytest
from made_up import CONTROLS, made_up
from matplotlib.text import Annotation

from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.figures import differences, failures, layers, pareto, quality, style
from dsa.analysis.output.figures.differences import together
from dsa.analysis.output.figures.every import draw
from dsa.analysis.output.figures.limits import axis
from dsa.analysis.output.figures.scatter import NAMED
from dsa.analysis.output.figures.spec import Axis, Chart, Mark, Panel, Row, Spot
from dsa.analysis.output.figures.spots import framed
from dsa.analysis.output.figures.style import Distinct, either_way

SMALL = (-0.15, -0.08, 0.02, 0.1)


@pytest.fixture
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def test_small_differences_beside_large_ones_have_a_logarithmic_axis_either_way():
    found = axis("loss", [*SMALL, 5.5, 6.0], [0.0], False, margin=0.01)
    assert found.linear_within == pytest.approx(0.03) and "log scale beyond ±0.03" in found.title
    assert found.limits[0] < -0.15 and 6.0 < found.limits[1] < 12
    for values, margin in ((SMALL, 0.01), ((4.0, 5.0, 6.0), 0.01), ((*SMALL, 6.0), 0.0), ((*SMALL, 6.0), 0.5)):
        assert axis("loss", values, [0.0], False, margin=margin).linear_within is None


def test_on_that_axis_small_differences_lie_apart():
    row = Row("a", "condition", tuple(Mark(0, value) for value in (0.1,)))
    panel = Panel("length 64", axis("loss", [*SMALL, 5.5, 6.0], [0.0], False, margin=0.01), rows=(row,))
    (axes,) = draw(Chart("differences", "forest", "Loss", (panel,), ("difference",))).axes
    places = axes.transAxes.inverted().transform(axes.transData.transform([(0.02, 0), (0.1, 0), (6.0, 0)]))[:, 0]
    assert places[1] - places[0] > 0.1 and places[2] < 1
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert "0" in ticks and "0.1" in ticks and len(set(ticks)) == len(ticks) <= style.MOST_TICKS


@pytest.mark.parametrize("kind", ["forest", "scatter"])
def test_a_figure_is_as_wide_as_its_title(kind):
    spots = (Spot("a", "condition", 1.0, 1.0, None, None, "front"),)
    panel = Panel("length 64", Axis("loss"), Axis("loss"), (Row("a", "condition", (Mark(0, 0.1),)),), spots)
    figure = draw(Chart("differences", kind, "Loss, backbone untouched, of a long name: " * 4, (panel,), ("one",)))
    figure.canvas.draw()
    (heading,) = figure.texts
    assert heading.get_window_extent().x1 < figure.bbox.x1


@pytest.mark.parametrize("limits", [(-0.3, 8.0), (-900.0, 900.0), (-0.001, 1e6), (-5.0, 0.001)])
def test_ticks_either_way_are_few_and_within(limits):
    ticks = either_way(0.03, limits)
    assert 0.0 in ticks and len(ticks) > 2 and all(limits[0] <= tick <= limits[1] for tick in ticks)


def test_neighbouring_ticks_have_labels_of_their_own():
    assert Distinct().format_ticks([5.551, 5.552, 5.553]) == ["5.551", "5.552", "5.553"]
    assert Distinct().format_ticks([5.54825, 5.5485, 5.54875]) == ["5.54825", "5.5485", "5.54875"], "evenly apart"
    assert Distinct().format_ticks([0.1, 0.25, 1e6]) == ["0.1", "0.25", "1M"]


def labels_of(axes):
    return [child for child in axes.get_children() if isinstance(child, Annotation) and child.get_text()]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_every_point_has_a_name_inside_its_panel_and_no_two_overlap(count):
    spots = [
        Spot(f"{kind}_{i}", "condition", x, 1.0 + 0.08 * i, None, None, "front")
        for kind, x in (("left", 1.0), ("a_long_name_at_the_right", 9.0))
        for i in range(8)
    ]
    spots.append(Spot("far_off", "condition", 5.0, 3.0, None, None, "front"))  # so that the others lie close together
    panels = tuple(framed(f"length {i}", "operations", "loss", spots) for i in range(count))
    figure = draw(Chart("pareto", "scatter", "Quality", panels))
    figure.canvas.draw()
    for axes in figure.axes:
        texts = labels_of(axes)
        assert {text.get_text() for text in texts} == {spot.label for spot in spots}
        frame, boxes = axes.get_window_extent(), [text.get_window_extent() for text in texts]
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.slow
def test_of_many_points_in_one_place_one_is_named_and_the_others_are_counted():
    apart = [Spot(f"c{i}", "condition", 1.0 + i, 1.0 + i, None, None, "front") for i in range(3)]
    heap = [Spot(f"same{i}", "condition", 3.0, 1.0 + 1e-4 * i, None, None, "dominated") for i in range(9)]
    pair = [Spot(f"pair{i}", "condition", 1.0, 3.0 + 1e-4 * i, None, None, "front") for i in range(2)]
    (axes,) = draw(Chart("p", "scatter", "Q", (framed("length", "cost", "loss", [*apart, *heap, *pair]),))).axes
    assert {text.get_text() for text in labels_of(axes)} == {"c0", "c1", "c2", "same0 + 8", "pair0", "pair1"}


@pytest.mark.slow
def test_of_hundreds_of_points_those_on_the_front_are_named():
    spots = [
        Spot(f"{standing}_{i}", "condition", float(i), i % 7 + 0.1 * i, None, None, standing)
        for standing, count in (("dominated", 200), ("front", 10))
        for i in range(count)
    ]
    figure = draw(Chart("pareto", "scatter", "Quality", (framed("length", "operations", "loss", spots),)))
    named = {text.get_text() for text in labels_of(figure.axes[0])}
    assert {f"front_{i}" for i in range(10)} <= named and len(named) <= NAMED


def test_what_lies_off_the_scale_is_told_in_full():
    near = [Spot(f"c{i}", "condition", 1.0 + i, 1.0 + 0.01 * i, None, None, "measured") for i in range(3)]
    off = [Spot(f"control_number_{i}", "random", 1.0, 60.0 + i, None, None, "measured") for i in range(4)]
    panel = framed("length 64", "keys", "excess", [*near, *off], log=False)
    assert panel.note.count("off the scale") == 1
    (axes,) = draw(Chart("budget", "scatter", "Excess", (panel,))).axes
    heading = axes.get_title("left")
    assert "…" not in heading and all(f"control_number_{i} ({60 + i})" in heading.replace("\n", " ") for i in range(4))


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_dense_attention_belongs_to_the_envelope_where_it_is_better():
    done = analyse(made_up({"a": 1.3, "b": 1.2}, seeds=3, noise=0.0, between=0.0))
    (panel,) = pareto.chart(done, "flops").panels
    spots = {spot.label: spot for spot in panel.spots}
    assert panel.envelope[-1] == (spots["dense"].x, spots["dense"].y)
    assert all((spots[control].x, spots[control].y) not in panel.envelope for control in ("oracle", "window"))
    chart = pareto.chart(done, "indexer_params")
    (panel,) = chart.panels
    assert "dense" not in {spot.label for spot in panel.spots} and panel.y.guides == (1.0,)
    assert "dense attention, which has no indexer" in chart.caption
    blind = analyse(made_up({"a": 1.3, "b": 1.2}, seeds=3, controls=dict.fromkeys(CONTROLS, 1.0)))
    assert [panel.envelope for panel in pareto.chart(blind, "flops").panels] == [()], "nothing is ranked there"


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("metric", "word"), [("val_loss", "Left"), ("val_accuracy", "Right")])
def test_contrasts_say_on_which_side_which_group_is_better(metric, word):
    def accurate(run, result):
        extra = {"val_accuracy": 1 - result["val_loss"] / 4, "dense_val_accuracy": 0.75}
        return result | {name: value for name, value in extra.items() if metric == "val_accuracy"}

    planned = {"heads": {"plus": ["h4d8", "h4d16"], "minus": ["h1d8", "h1d16"]}}
    losses = {"h4d8": 1.1, "h4d16": 1.1, "h1d8": 1.3, "h1d16": 1.3}
    made = made_up(losses, lengths=(64, 128), each=accurate, contrasts=planned, metric=metric, margin={metric: 0.01})
    chart = differences.contrasts(analyse(made))
    assert f"{word} of 0 the first group is better. heads: h4d{{8,16}} less h1d{{8,16}}." in chart.caption
    good, bad = ("h4d{8,16}", "h1d{8,16}") if word == "Left" else ("h1d{8,16}", "h4d{8,16}")
    at_one, at_other, change = (panel.rows[0] for panel in chart.panels)
    assert at_one.ends == at_other.ends == (f"{good} better", f"{bad} better")
    assert change.ends == (f"{good} gains from 64 to 128", f"{bad} gains from 64 to 128")
    texts = [text.get_text() for text in draw(chart).axes[0].texts]
    assert f"← {good} better" in texts and f"{bad} better →" in texts


def test_long_names_take_several_lines_and_are_not_cut():
    name = "int4 with one scale a tensor or one a row, " * 3
    ends = (f"{{{','.join(f'h4d64+local_global_{n}' for n in range(5))}}} better", "h4d64 better")
    rows = (Row(name.strip(), "condition", (Mark(0, 0.1),), ends=ends), Row("short", "condition", (Mark(0, 0.2),)))
    figure = draw(Chart("contrasts", "forest", "Contrasts", (Panel("length 64", Axis("x"), rows=rows),), ("one",)))
    (axes,) = figure.axes
    label, short = (text.get_text() for text in axes.get_yticklabels())
    assert label.replace("\n", " ") == name.strip() and label.count("\n") == 3 and short == "short"
    told = ["".join(text.get_text().split()) for text in axes.texts]
    assert "".join(f"← {ends[0]}".split()) in told
    figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in axes.get_yticklabels())
    assert first.y0 > second.y1 and figure.get_figwidth() < 8, "it grows in height"


@pytest.mark.parametrize(
    ("labels", "short"),
    [
        (["h2d32"], "h2d32"),
        (["h1d8", "h1d16"], "h1d{8,16}"),
        (["h1d64", "h2d64"], "h{1,2}d64"),
        (["h1d8-weightsigned", "h1d16-weightsigned"], "h1d{8,16}-weightsigned"),
        (["causal", "strided_2"], "{causal,strided_2}"),
    ],
)
def test_several_labels_in_short_never_cut_a_number(labels, short):
    assert together(labels) == short


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(("depth", "cells"), [(2, False), (12, True)])
def test_many_layers_are_told_in_colours(depth, cells):
    told = {"selection": {"layers": [{"mass": 0.5 + n / 100, "oracle_mass": 0.9} for n in range(depth)]}}
    done = analyse(made_up({"a": 1.0, "b": 1.0}, seeds=2, each=lambda run, result: result | told))
    chart = layers.chart(done, "mass")
    drawn = draw(chart).axes[0].patches
    assert len({patch.get_facecolor() for patch in drawn}) == (depth if cells else 0)
    assert ("a cell for each" in chart.caption) == cells == ("interval" not in chart.caption)


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_shares_of_seeds_that_are_all_small_have_an_axis_of_their_size():
    losses = dict.fromkeys(("h1d8", "h2d8"), 1.5)
    chart = failures.success(analyse(made_up(losses, seeds=30, noise=0.0005)))
    (panel,) = chart.panels
    assert panel.x.limits[1] < 0.2 and [row.note for row in panel.rows] == ["0/30", "0/30"]
    texts = [text.get_text() for text in draw(chart).axes[0].texts]
    assert texts.count("0/30") == 2


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_quality_has_one_mark_for_each_scale_measured():
    done = analyse(made_up({"a": 1.1}, seeds=2))
    alone = replace(done, qualities=[one for one in done.qualities if one.metric == "val_loss"])
    for shown, scales in ((done, 2), (alone, 1)):
        chart = quality.chart(shown)
        assert len(chart.series) == scales
        assert all(len(row.marks) == scales for panel in chart.panels for row in panel.rows)


def test_dense_attention_has_a_colour_of_its_own():
    assert style.colour_of("dense") not in {
        style.colour_of(kind) for kind in (*CONTROLS, "baseline") if kind != "dense"
    }
