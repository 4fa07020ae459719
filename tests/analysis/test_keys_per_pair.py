"""Excess by the keys kept for each pair: a line an indexer, the controls of each budget beside it."""

from dataclasses import replace

import pytest
from made_up import made_up

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.figures import budgets, pairs
from dsa.analysis.output.figures.every import draw

pytestmark = pytest.mark.slow
RATIOS = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0}
AT_ONE = {"oracle": 1.0, "h4d64": 1.02, "h1d16": 1.4}  # what each loses with a key for each pair, of 1.0 with all
FAR = {"dense": 1.0, "random": 3.0, "window": 4.0, "sink_window": 4.0, "static": 2.0, "replicate": 1.02}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def by_ratio(ratios: dict[str, float], budget: str | None = "own", seeds: int = 6) -> Prepared:
    """A study with controls at each ratio; what is missing below a key a pair, everything loses."""
    lost = {ratio: max(0.0, 2.0 * (1 - value)) for ratio, value in ratios.items()}
    conditions = {
        f"{name}-k{ratio}pairs": AT_ONE[name] + more for name in ("h4d64", "h1d16") for ratio, more in lost.items()
    }
    controls = {
        f"{name}-k{ratio}pairs": at + (more if name == "oracle" else 0.0)
        for name, at in {**FAR, "oracle": 1.0}.items()
        for ratio, more in lost.items()
    }
    made = made_up(conditions, controls=controls | {"dense": 1.0, "window": 4.0}, seeds=seeds, noise=0.001)
    context = {label: label.split("-")[1] for label in (*conditions, *controls)}
    runs = [run | {"context": context[run["label"]]} for run in made.meta.runs if run["label"] in context]
    own = {
        label: {"indexer": label.split("-")[0], "selector.k": f"${{pairs:{context[label][1:-5]}}}"}
        for label in conditions
    }
    frame = made.runs[made.runs["label"].isin(context)]
    frame = frame.assign(context=frame["label"].map(context))
    return replace(made, meta=replace(made.meta, runs=runs, conditions=own, budget=budget), runs=frame)


def test_each_indexer_is_compared_at_its_own_budget_with_the_controls_there():
    done = analyse(by_ratio(RATIOS))
    assert {(c.label, c.reference) for c in done.comparisons} == {
        (f"h1d16-k{ratio}pairs", f"h4d64-k{ratio}pairs") for ratio in RATIOS
    }
    (panel,) = pairs.chart(done).panels
    lines = {line.label: line for line in panel.lines}
    assert set(lines) == {"h4d64", "h1d16", "oracle", "random", "window", "sink_window", "static", "replicate"}
    assert panel.x.log and panel.x.ticks == tuple(RATIOS.values())
    assert all(line.x == tuple(RATIOS.values()) and line.over == "6 seeds" for line in lines.values())
    assert lines["oracle"].y == pytest.approx((1.5, 1.0, 0.0, 0.0), abs=0.01)
    assert lines["h1d16"].y == pytest.approx((1.9, 1.4, 0.4, 0.4), abs=0.01)
    assert all(
        low <= y <= high for line in lines.values() for low, y, high in zip(line.low, line.y, line.high, strict=True)
    )
    assert budgets.chart(done).panels == (), "one picture of the same"


def test_the_picture_has_a_sign_and_an_interval_for_each_ratio():
    chart = pairs.chart(analyse(by_ratio(RATIOS)))
    (axes,) = draw(chart).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.25", "0.5", "1", "2"]
    marked = [line for line in axes.get_lines() if line.get_marker() not in ("", "None")]
    assert len(marked) == len(axes.collections) == len(chart.panels[0].lines)


def test_one_ratio_or_budgets_in_keys_have_no_such_picture():
    assert pairs.chart(analyse(by_ratio({"1": 1.0}))).panels == ()
    made = by_ratio(RATIOS)
    keys = {label: own | {"selector.k": 8} for label, own in made.meta.conditions.items()}
    assert pairs.chart(analyse(replace(made, meta=replace(made.meta, conditions=keys)))).panels == ()
