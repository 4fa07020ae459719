"""Seeds of a given model are copies of one measurement where nothing is drawn, and show nothing by their number."""

import pandas as pd
import pytest
from analysis.made_up import CONTROLS, made_up, named, words

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.compare import compare
from dsa.analysis.judgement.contrasts import contrasts
from dsa.analysis.judgement.ranking import Ranked
from dsa.analysis.statistics.paired import paired

DRAWN = ("h1d8", "h4d64")


def given_model(losses, controls=CONTROLS, drawn=DRAWN, **changes):
    """A study in which indexers alone vary between seeds, by up to 0.01 nats."""

    def each(run, result):
        result = result | {"certificate": {"acted": 1.0}}
        if run["label"] in drawn:
            drawn_by = (7 * run["seed"] + len(run["label"])) % 10 / 1000
            result = result | {"val_loss": result["val_loss"] + drawn_by}
        return result

    return made_up(losses, seeds=12, noise=0.0, between=0.0, controls=controls, each=each, **changes)


def test_two_numbers_that_are_the_same_in_every_seed_are_compared_once():
    still = pd.Series([1.5, 1.5, 1.5])
    assert paired(still, still + 0.25).tolist() == [-0.25]
    assert paired(still, pd.Series([1.0, 1.1, 1.0])).tolist() == pytest.approx([0.5, 0.4, 0.5])
    assert paired(still, pd.Series({1: 1.0, 2: 1.0, 7: 3.0})).to_dict() == {1: 0.5}


def test_a_task_that_two_solve_in_every_seed_is_no_copy():
    solved = pd.Series([1.0] * 24)
    assert len(paired(solved, solved)) == 24

    def each(run, result):
        return result | {"val_accuracy": 1.0}

    saturated = {"metric": "val_accuracy", "hypothesis": {"claim": "no_quality_loss", "metric": "val_accuracy"}}
    made = made_up({"a": 1.1, "b": 1.1}, seeds=24, each=each, margin={"val_accuracy": 0.01}, **saturated)
    (c,) = [c for c in compare(made, "val_accuracy", {(64, "")}) if c.label == "b"]
    assert (c.word, c.loses_nothing, c.difference.seeds) == ("equivalent", True, 24)
    assert not named(analyse(made), "one number for all seeds")


def test_copies_of_one_number_show_nothing():
    losses = {"window_16": 1.3, "window_32": 1.2, "h1d8": 1.15, "h4d64": 1.1}
    done = analyse(given_model(losses, baseline="window_16"))
    assert words(done) == {("window_32", 64): "inconclusive", ("h1d8", 64): "better", ("h4d64", 64): "better"}
    (still,) = [c for c in done.comparisons if (c.label, c.metric) == ("window_32", "val_loss")]
    assert still.difference.seeds == 1 and "one seed carries no claim over 3 comparisons" in still.sentence
    (told,) = named(done, "one number for all seeds")
    assert told.startswith("at 64: window_16, window_32: one number for all seeds")
    assert not named(analyse(made_up(losses)), "one number for all seeds")
    front = {p.label: p for p in done.points if p.cost == "flops"}
    assert "window_32" not in front["window_16"].dominated_by


def test_a_contrast_of_copies_is_one_value():
    sides = {"still": {"plus": ["window_16"], "minus": ["window_32"]}, "drawn": {"plus": ["h1d8"], "minus": ["h4d64"]}}
    losses = {"window_16": 1.3, "window_32": 1.2, "h1d8": 1.15, "h4d64": 1.1}
    still, drawn = analyse(given_model(losses, contrasts=sides)).contrasts
    assert (still.difference.seeds, still.differs) == (1, False)
    assert (drawn.difference.seeds, drawn.differs) == (12, True)


@pytest.mark.parametrize(("gain", "possible"), [(0.011, True), (0.009, False)])
def test_a_given_models_dense_attention_has_to_beat_controls_by_more_than_the_margin(gain, possible):
    controls = CONTROLS | {"window": CONTROLS["dense"] + gain}
    done = analyse(given_model({"h1d8": 1.15, "h4d64": 1.1}, controls=controls))
    (found,) = done.discrimination
    assert found.possible is possible
    assert possible or "dense does not beat window by more than the margin of 0.01 (it gains +0.009" in found.sentence


def test_one_number_that_is_better_than_dense_attention_by_more_than_the_margin_is_not_ranked():
    done = analyse(given_model({"window_16": 1.3, "leak": CONTROLS["dense"] - 0.02, "h4d64": 1.1}))
    (told,) = named(done, "better than dense")
    assert "leak at 64 is better than dense attention by 0.02 nats, beyond the margin" in told
    assert "leak" not in done.ranked[64, ""]
    near = analyse(given_model({"window_16": 1.3, "luck": CONTROLS["dense"] - 0.002, "h4d64": 1.1}))
    assert not named(near, "better than dense")


def test_contrasts_are_corrected_over_all_that_are_measured_and_not_over_those_that_may_be_ranked():
    sides = {"known": {"plus": ["a"], "minus": ["b"]}, "blind": {"plus": ["a"], "minus": ["c"]}}
    made = made_up({"a": 1.2, "b": 1.1, "c": 1.3}, seeds=7, contrasts=sides)
    (alone,) = contrasts(made, Ranked({(64, ""): ["a", "b"]}), SCALES["val_loss"])
    assert (alone.name, alone.comparisons) == ("known", 2)
    assert alone.p == pytest.approx(2 * 2 / 2**7)
    both = contrasts(made, Ranked({(64, ""): ["a", "b", "c"]}), SCALES["val_loss"])
    assert {c.name: c.p for c in both}["known"] == alone.p
