"""Planned contrasts, regret over lengths, and what the baseline differs from itself."""

from typing import Any

import numpy as np
import pytest
from made_up import CONTROLS, made_up

from dsa.analysis.inputs.scale import SCALES, scale_of
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.contrasts import contrasts
from dsa.analysis.judgement.guards import noise_floor
from dsa.analysis.judgement.ranking import Ranked
from dsa.analysis.output.figures import differences
from dsa.analysis.statistics.no_loss import no_worse
from dsa.study.question import read

SIDES = {"heads": {"plus": ["a", "b"], "minus": ["c", "d"]}}
MARGIN = 0.01


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


@pytest.mark.slow
def test_a_contrast_is_the_mean_of_some_less_that_of_others_within_a_seed():
    losses = {"a": 1.1, "b": 1.3, "c": {64: 1.05, 128: 1.15}, "d": {64: 1.05, 128: 1.15}}
    done = analyse(made_up(losses, lengths=(64, 128), seeds=12, noise=0.001, contrasts=SIDES))
    at_64, at_128, change = done.contrasts
    assert (at_64.seq_len, at_64.since, at_128.seq_len, change.since) == (64, None, 128, 64)
    assert at_64.difference.mean == pytest.approx(0.15, abs=0.002)
    assert at_128.difference.mean == pytest.approx(0.05, abs=0.002)
    assert change.difference.mean == pytest.approx(-0.1, abs=0.003)
    assert at_64.differs and at_128.differs and change.differs
    assert "heads at 64: differs, +0.15" in at_64.sentence and "over 3 contrasts" in at_64.sentence


@pytest.mark.slow
def test_sums_say_what_two_factors_are_worth_together_beyond_each_alone():
    losses = {"a": 1.1, "b": 1.3, "c": 1.15, "d": 1.6}  # a neither, b and c one each, d both
    sums = {"both": {"plus": ["d", "a"], "minus": ["b", "c"], "sums": True}}
    done = analyse(made_up(losses, seeds=12, noise=0.001, contrasts=sums))
    (contrast,) = done.contrasts
    assert contrast.difference.mean == pytest.approx((1.6 - 1.3) - (1.15 - 1.1), abs=0.003)
    assert "both: sum of {d,a} less {b,c}." in differences.contrasts(done).caption


@pytest.mark.slow
def test_a_claim_about_contrasts_needs_each_of_them_at_each_length():
    claim = {"claim": "contrasts_differ", "metric": "val_loss"}
    for later, answer in ((1.1, "supported"), (1.2, "inconclusive"), (1.3, "inconclusive")):
        losses = {"a": 1.2, "b": 1.2, "c": {64: 1.1, 128: later}, "d": {64: 1.1, 128: later}}
        made = made_up(losses, lengths=(64, 128), seeds=12, noise=0.01, contrasts=SIDES, hypothesis=claim)
        assert analyse(made).answer == answer, later


def test_a_contrast_of_a_condition_that_may_not_be_ranked_is_left_out():
    made = made_up({"a": 1.2, "b": 1.2, "c": 1.1, "d": 1.1}, contrasts=SIDES)
    assert not contrasts(made, Ranked({(64, ""): ["a", "b", "c"]}), SCALES["val_loss"])


@pytest.mark.slow
def test_a_contrast_may_name_either_of_two_conditions_of_equal_numbers():
    kept = {}

    def each(run, result):
        return kept.setdefault(("c" if run["label"] == "d" else run["label"], run["seed"]), result)

    losses = {"a": 1.2, "b": 1.2, "c": 1.1, "d": 9.9}
    made = made_up(losses, seeds=12, noise=0.01, contrasts=SIDES, each=each)
    (contrast,) = analyse(made).contrasts
    assert contrast.difference.mean == pytest.approx(0.1, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["gaussian", "skewed", "bimodal"])
def test_contrasts_of_nothing_are_called_different_no_more_often_than_promised(shape):
    draw, studies, called = np.random.default_rng(1), 200, 0
    made = made_up({"a": 1.1, "b": 1.1, "c": 1.1, "d": 1.1}, lengths=(64, 128), seeds=10, contrasts=SIDES)
    field = Ranked({(64, ""): [*"abcd"], (128, ""): [*"abcd"]})
    for _ in range(studies):
        size = len(made.runs)
        noise = {
            "gaussian": draw.normal(0, 0.1, size),
            "skewed": draw.exponential(0.1, size),
            "bimodal": 1.0 * (draw.uniform(size=size) < 0.2),
        }[shape]
        made.asked.clear()
        made.__dict__.pop("groups", None)
        made.runs["val_loss"] = 1.0 + noise
        called += any(c.differs for c in contrasts(made, field, SCALES["val_loss"]))
    assert called / studies <= 0.05 + 2.6 * (0.05 * 0.95 / studies) ** 0.5


@pytest.mark.slow
def test_regret_names_the_one_that_will_do_everywhere():
    losses = {"a": 1.1, "b": {64: 1.1, 128: 1.3}, "c": {64: 1.3, 128: 1.1}}
    first, *others = analyse(made_up(losses, lengths=(64, 128), seeds=30, noise=0.001)).regret
    assert first.label == "a" and first.everywhere and first.largest < 0.005
    assert [one.everywhere for one in others] == [False, False]
    assert {one.label: one.at for one in others} == {"b": 128, "c": 64}
    assert all(one.largest == pytest.approx(0.2, abs=0.01) for one in others)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["gaussian", "skewed", "bimodal"])
def test_a_true_loss_of_the_margin_is_not_called_within_it(shape):
    draw, wide = np.random.default_rng(0), (400, 30)
    losses = {
        "gaussian": draw.normal(MARGIN, 0.003, wide),
        "skewed": MARGIN * draw.exponential(1.0, wide),
        "bimodal": 5 * MARGIN * (draw.uniform(size=wide) < 0.2) + draw.normal(0, 1e-4, wide),
    }[shape]
    called = np.mean([no_worse(row, MARGIN) < 0.05 for row in losses])
    assert called <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5
    assert no_worse(losses[0] - 1.0, MARGIN) < 0.05, "a gain is no loss"


@pytest.mark.slow
def test_the_baseline_again_tells_what_is_noise():
    again = CONTROLS | {"replicate": 1.102}
    done = analyse(made_up({"a": 1.1, "b": 1.2}, seeds=12, noise=0.001, controls=again))
    (guard,) = [g for g in done.guards if g.name == "noise floor"]
    assert "a under other initial indexers differs from itself by +0.00" in guard.sentence
    assert not guard.blocks


def noisy(shape: str, draw: np.random.Generator) -> Any:
    """What adds to each run a share of its own that has nothing to do with which condition it is."""
    failed = {"gaussian": 0.0, "some seeds fail": 0.2}[shape]
    return lambda run, result: result | {"val_loss": result["val_loss"] + float(draw.uniform() < failed)}


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["gaussian", "some seeds fail"])
def test_a_condition_is_not_told_apart_from_itself_more_often_than_promised(shape):
    """A/A: the baseline and the baseline again, whatever an unlucky draw of its indexers costs."""
    again, studies, draw = CONTROLS | {"replicate": 1.1}, 300, np.random.default_rng(0)
    told = 0
    for n in range(studies):
        made = made_up({"a": 1.1}, seeds=8, noise=0.01, seed=n, controls=again, each=noisy(shape, draw))
        (guard,) = noise_floor(made, 64, scale_of("val_loss"))
        told += ", told apart from itself" in guard.sentence
    assert 0 < told / studies <= 0.05 + 2.6 * (0.05 * 0.95 / studies) ** 0.5


def test_a_condition_that_differs_from_itself_is_said_to_be_told_apart():
    """As where the seeds of the indexers were not what differs."""
    made = made_up({"a": 1.1}, seeds=8, noise=0.001, controls=CONTROLS | {"replicate": 1.2})
    (guard,) = noise_floor(made, 64, scale_of("val_loss"))
    assert ", told apart from itself, as by chance 1 study in 20 is" in guard.sentence


@pytest.mark.slow
def test_bases_that_missed_their_criterion_are_named():
    def each(run, result):
        solved = None if run["seed"] in (2, 5) else 200
        return result | {"base_training": {"steps": 400, "until": 0.98, "solved_at": solved, "accuracy": 0.9}}

    done = analyse(made_up({"a": 1.1, "b": 1.2}, seeds=8, each=each))
    (guard,) = [g for g in done.guards if g.name == "unsolved bases"]
    assert "seeds 2, 5" in guard.sentence


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ({"x": {"plus": ["a"]}}, "contrasts.x = .*: give plus and minus"),
        ({"x": {"plus": ["a"], "minus": ["z"]}}, "contrasts.x: z; give each label once, of a, b, c"),
        ({"x": {"plus": ["a"], "minus": ["a"]}}, "contrasts.x: a label stands twice"),
        ({"x": {"plus": ["a"], "minus": ["b"], "sums": 2}}, "contrasts.x: sums = 2: give true or false"),
        ({"x": {"plus": ["a"], "minus": ["b", "c"], "sums": True}}, "contrasts.x: sums = True: .* as many labels"),
        ([1], "contrasts = .*: give key: value"),
    ],
)
def test_a_contrast_that_cannot_be_made_is_refused(contrasts, message):
    plan = {"conditions": {"indexer": ["a", "b", "c"]}, "contrasts": contrasts}
    with pytest.raises(ValueError, match=message):
        read("s", plan, {}, {"indexer"})


def test_contrasts_whose_conditions_the_command_line_leaves_out_are_left_out():
    plan = {"conditions": {"indexer": ["a", "b", "c"]}, "contrasts": {
        "x": {"plus": ["a"], "minus": ["b"]}, "y": {"plus": ["a"], "minus": ["c"]},
    }}  # fmt: skip
    assert set(read("s", plan, {"indexer": ["a", "b"]}, {"indexer"}).contrasts) == {"x"}
    assert set(read("s", plan, {}, {"indexer"}).contrasts) == {"x", "y"}
    plan["contrasts"]["x"]["sums"] = True
    assert read("s", plan, {}, {"indexer"}).contrasts["x"] == {"plus": ["a"], "minus": ["b"], "sums": True}
