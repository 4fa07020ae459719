"""One estimator for times: what is divided out of the medians shown is the ratio shown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import made_up

from dsa.analysis.inputs.timing import in_fresh_processes, ratio
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.figures import pareto

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
