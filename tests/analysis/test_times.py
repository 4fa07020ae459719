"""One estimator for times: what is divided out of the medians shown is the ratio shown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import made_up

from dsa.analysis.inputs.timing import in_fresh_processes, ratio
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.figures import pareto
from dsa.analysis.output.figures.every import charts
from dsa.analysis.output.report.answer import opening, picture

MINE, THEIRS = (24.0, 21.8, 21.9, 29.9, 21.9), (33.2, 31.9, 33.1, 31.9, 33.0)


def test_a_ratio_is_that_of_the_medians_and_one_slow_turn_does_not_move_it():
    found = ratio(pd.Series(MINE), pd.Series(THEIRS))
    assert found.value == 21.9 / 33.0
    assert found.interval == (min(np.divide(MINE, THEIRS)), max(np.divide(MINE, THEIRS)))
    slower = ratio(pd.Series([*MINE[:3], 300.0, MINE[4]]), pd.Series(THEIRS))
    assert slower.value == found.value and slower.interval[1] > 9


@pytest.mark.parametrize("seed", range(20))
def test_a_ratio_lies_within_its_interval(seed):
    draw = np.random.default_rng(seed)
    found = ratio(*(pd.Series(draw.lognormal(3, 1, 6)) for _ in range(2)))
    assert found.interval[0] <= found.value <= found.interval[1]


def test_without_turns_there_is_no_ratio_and_of_one_turn_no_interval():
    none, one = pd.Series(dtype=float), pd.Series([2.0])
    assert ratio(none, one) is ratio(one, none) is None
    assert ratio(one, pd.Series([4.0])).value == 0.5 and ratio(one, one).interval is None


def slow_turn(prepared):
    """The cheaper condition's last turn takes ten times as long."""
    (here,) = prepared.timing.values()
    turns = here["turns"]["b"]
    slowed = [*turns[:-1], {"step_ms": 10 * turns[-1]["step_ms"]}]
    return replace(prepared, timing={"64": here | {"turns": here["turns"] | {"b": slowed}}})


@pytest.mark.slow
def test_speed_up_and_front_show_the_median_over_turns(monkeypatch):
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)
    made = made_up({"a": 1.1, "b": 1.1}, seeds=3)
    done = analyse(slow_turn(made))
    times = {
        label: np.median([turn["step_ms"] for turn in turns]) for label, turns in made.timing["64"]["turns"].items()
    }
    (b,) = [one for one in done.efficiency if one.label == "b"]
    assert b.speed_up == pytest.approx(times["a"] / times["b"])
    chart = pareto.chart(done, "step_ms")
    spots = {spot.label: spot for spot in chart.panels[0].spots}
    assert spots["b"].x == pytest.approx(times["b"]) and spots["b"].x_interval[1] > 5 * times["b"]
    assert "medians" in chart.caption and "in a process of its own" in chart.caption


@pytest.mark.parametrize(
    ("turns", "processes", "fresh"), [(5, 5, True), (6, 6, True), (5, None, False), (4, 4, False), (6, 5, False)]
)
def test_turns_count_only_in_at_least_five_processes_of_their_own(turns, processes, fresh):
    here = {"turns": {"a": [{"step_ms": 1.0}] * turns}} | ({} if processes is None else {"processes": processes})
    assert in_fresh_processes({"64": here}, "a", 64) is fresh
    assert not in_fresh_processes({"64": here}, "a", 128) and not in_fresh_processes({"64": here}, "b", 64)


def timed(b: float, spread: float = 0.01, **changes):
    """Two conditions at two lengths whose losses cannot be told apart; b takes `b` times the time of a."""
    same = dict.fromkeys(("dense", "oracle", "window", "random"), 1.0)
    made = made_up({"a": 1.0, "b": 1.0}, lengths=(64, 128), seeds=1, controls=same, **changes)
    turns = 1 + spread * np.linspace(-1, 1, 6)
    here = {"contended": False, "processes": 6, "machine": {"processor": "one"}}
    of_a, of_b = ([{"step_ms": 50 * times * turn} for turn in order] for times, order in ((1, turns), (b, turns[::-1])))
    return replace(made, timing={n: here | {"turns": {"a": of_a, "b": of_b}} for n in ("64", "128")})


@pytest.mark.parametrize(
    ("b", "answer", "told"),
    [
        (0.7, "supported", "than a: saved of its time are, b at 64 (30 [29, 31] %) and 128"),
        (1.3, "not supported", "Not all save time in a training step against a: b at 64 (-30 [-33, -27] %)"),
        (1.005, "inconclusive", "turns disagree, or were not taken, for b at 64 and 128 (timed alone"),
    ],
)  # fmt: skip
def test_a_claim_about_time_rests_on_every_turn_and_on_no_loss(b, answer, told):
    done = analyse(timed(b, hypothesis={"claim": "takes_less_time"}))
    assert done.answer == answer, done.sentence
    assert told in opening(done)
    assert not any(one.possible for one in done.discrimination)
    chart = picture(done, charts(done))
    assert chart.name == "times"
    lines = {line.label: line for line in chart.panels[0].lines}
    assert lines["b"].x == (64.0, 128.0) and lines["b"].y == pytest.approx((50 * b, 50 * b))
    assert lines["b"].over == "6 turns" and lines["b"].low[0] < 50 * b < lines["b"].high[0]


def test_a_claim_about_time_waits_for_every_length_and_claims_nothing_where_it_is_declared_exploratory():
    def each(run, result):
        return None if run["label"] == "b" and run["seq_len"] == 128 else result

    lacking = analyse(timed(0.7, each=each, hypothesis={"claim": "takes_less_time"}))
    assert lacking.answer == "inconclusive" and "b at 128 has no result." in lacking.sentence
    declared = analyse(timed(0.7, exploratory=True, hypothesis={"claim": "takes_less_time"}))
    assert declared.answer == "inconclusive" and "points to: supported. b at 64: 30 [29, 31] %" in declared.sentence
    assert "declared too small for a claim before it ran" in opening(declared)


def test_a_claim_about_time_is_open_where_a_length_has_no_fresh_turns():
    prepared = timed(0.7, hypothesis={"claim": "takes_less_time"})
    stale = prepared.timing | {"128": prepared.timing["128"] | {"processes": 1}}
    done = analyse(replace(prepared, timing=stale))
    assert done.answer == "inconclusive" and "b at 128: turns were not taken in at least 5 fresh" in done.sentence
    assert "for b at 128; all others do, by 30 to 30 % of its time" in opening(done)
