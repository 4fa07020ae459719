"""Costs beside quality: what is on the front, how fast, and how both grow with the length."""

from dataclasses import replace

import pytest
from made_up import made_up, named

from dsa.analysis.judgement.analysis import analyse

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.mark.slow
def test_dominance_respects_the_intervals():
    done = analyse(made_up({"a": 1.2, "b": 1.2, "c": 1.25, "d": 1.1}, noise=0.002, seeds=20))
    points = {p.label: p for p in done.points if p.cost == "flops"}
    assert points["d"].on_front and points["d"].shown
    assert set(points["a"].dominated_by) == {"b", "d"}
    noisy = analyse(made_up({"a": 1.2, "b": 1.19}, noise=0.1, seed=1))
    points = {p.label: p for p in noisy.points if p.cost == "flops"}
    assert points["a"].on_front and not points["a"].shown
    assert points["b"].on_front and points["b"].shown


ALONE = "python -m dsa.study time outputs/made_up"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("real", "timed", "reason"),
    [
        (False, {}, "mask"),
        (True, {"turns": {}}, f"not timed alone, after training ({ALONE} does that)"),
        (True, {"contended": True}, f"other processes were busy while steps were timed ({ALONE} times them again)"),
        (True, {"processes": 1}, f"turns were not taken in at least 5 fresh processes ({ALONE} times them again)"),
    ],
)
def test_unreal_speed_is_not_ranked(real, timed, reason):
    """Not even where the runs themselves say that they had no company: their times were not taken in turns."""
    prepared = made_up({"a": 1.2, "b": 1.1}, each=lambda run, result: result | {"speed_is_real": real})
    assert [p for p in analyse(made_up({"a": 1.2, "b": 1.1})).points if p.cost == "step_ms"]
    done = analyse(replace(prepared, timing={"64": prepared.timing["64"] | timed}))
    assert reason in named(done, "no speed claim")[0]
    assert not [p for p in done.points if p.cost == "step_ms"]
    assert all(e.speed_up is None and e.efficiency is None for e in done.efficiency)


@pytest.mark.slow
def test_times_of_two_machines_are_not_fitted_over_the_lengths():
    prepared = made_up({"a": 1.2, "b": 1.1}, lengths=(64, 128, 256))
    assert "step_ms" in {fit.what for fit in analyse(prepared).scaling}
    other = prepared.timing | {"256": prepared.timing["256"] | {"machine": {"processor": "two"}}}
    assert "step_ms" not in {fit.what for fit in analyse(replace(prepared, timing=other)).scaling}


@pytest.mark.slow
def test_efficiency_follows_its_formula():
    done = analyse(made_up({"a": 1.2, "b": 1.1}, noise=0.0))
    row = {e.label: e for e in done.efficiency}["b"]
    assert row.quality_kept == pytest.approx((3 - 1.1) / (3 - 1.2), abs=0.05)
    assert row.speed_up == pytest.approx((10 + 68) / (10 + 67))
    assert row.efficiency == pytest.approx(row.speed_up * row.quality_kept)
    assert row.parameters == pytest.approx(0.75)


@pytest.mark.slow
def test_slopes_are_those_planted():
    losses = {"a": 1.2, "b": {64: 1.2, 128: 1.23, 256: 1.26, 512: 1.29}}

    def each(run, result):
        n = run["seq_len"]
        return result | {"flops": {"indexer": n**2, "select": 0, "sparse_attention": 0, "dense_attention": n**2}}

    done = analyse(made_up(losses, lengths=(64, 128, 256, 512), each=each))
    fits = {(f.label, f.what): f for f in done.scaling}
    assert fits["b", "flops"].slope == pytest.approx(2.0)
    assert fits["b", "val_loss"].slope == pytest.approx(0.03, abs=0.002)
    low, high = fits["b", "val_loss"].interval
    assert low < 0.03 < high
