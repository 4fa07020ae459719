"""The share of the headroom: losses up to chance, one opponent a study, and none where nothing may be ranked."""

import pytest
from made_up import CONTROLS, made_up

from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.headroom import opponent
from dsa.analysis.output.figures import recovered
from dsa.analysis.output.report.use import use

pytestmark = pytest.mark.slow
CHANCE = 3.0
WITH_SINKS = CONTROLS | {"sink_window": 1.2, "static": 5.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def shares(losses, **changes):
    done = analyse(made_up(losses, noise=0.0, between=0.0, seeds=4, **changes))
    return {h.label: h.recovered for h in done.headroom if h.metric == "val_loss"}


def test_a_confident_wrong_answer_recovers_no_less_and_no_more_than_chance_does():
    controls = WITH_SINKS | {"window": 9.0, "random": 9.0}
    found = shares({"a": 2.0, "b": 7.0}, controls=controls, each=lambda run, result: result | {"chance_loss": CHANCE})
    assert found["a"] == pytest.approx(0.5), "from chance at 3 to dense at 1"
    assert found["b"] == found["static"] == found["random"] == 0


def test_all_conditions_have_one_opponent_whatever_their_own_budget():
    def wider(run, result):
        return result | ({"swap_window_loss": 1.1} if run["label"] == "b" else {})

    done = analyse(made_up({"a": 1.1, "b": 1.1}, noise=0.0, between=0.0, seeds=4, each=wider))
    found = {h.label: h.recovered for h in done.headroom if h.metric == "swap_val_loss"}
    assert found["a"] == found["b"] == pytest.approx(0.8)


@pytest.mark.parametrize(("certified", "kind", "share"), [(False, "window", 0.8), (True, "sink_window", 0.5)])
def test_of_a_pretrained_model_the_opponent_keeps_the_first_keys_too(certified, kind, share):
    marks = {"certificate": {"tokens": 9}} if certified else {}
    made = made_up(
        {"a": 1.1}, noise=0.0, between=0.0, seeds=4, controls=WITH_SINKS, each=lambda run, result: result | marks
    )
    done = analyse(made)
    assert opponent(made) == kind
    found = {h.label: h for h in done.headroom if h.metric == "val_loss"}
    assert found["a"].recovered == pytest.approx(share) and found["a"].opponent == kind
    assert kind not in found and "dense" not in found
    told = {
        "window": "the nearest keys the margin is 2.0 %",
        "sink_window": "the first keys and the nearest the margin is 5.0 %",
    }
    assert f"Of what dense attention gains over {told[kind]} at 64" in use(done).note
    assert f"the control {kind} (" in recovered.chart(done).caption


def test_a_pretrained_study_without_its_opponent_speaks_of_no_share():
    made = made_up({"a": 1.1}, seeds=4, each=lambda run, result: result | {"certificate": {"tokens": 9}})
    done = analyse(made)
    assert "the margin is" not in use(done).note
    assert done.headroom == [] and recovered.chart(done).panels == ()


def test_where_nothing_may_be_ranked_no_share_is_told():
    controls = CONTROLS | {"random": {64: 0.9, 128: 2.0}}
    done = analyse(made_up({"a": 1.2}, lengths=(64, 128), controls=controls))
    assert {h.seq_len for h in done.headroom} == {128}
    assert [panel.name for panel in recovered.chart(done).panels] == ["length 128"]


def test_a_scale_on_which_dense_beats_nobody_has_no_share():
    def same(run, result):
        return result | {"swap_val_loss": 1.0, "base_val_loss": 1.0, "swap_window_loss": 1.0}

    done = analyse(made_up({"a": 1.1, "b": 1.2}, each=same))
    assert {h.metric for h in done.headroom} == {"val_loss"}
