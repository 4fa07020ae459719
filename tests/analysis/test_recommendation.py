"""What a study recommends: only what was shown to lose nothing, or the best measured here, said to be no more."""

import json
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from made_up import made_up

from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.best import BASELINE, BEHIND, LOSSLESS, ONLY_BEST, Best
from dsa.analysis.output.report.grid import best as best_grid
from dsa.analysis.output.report.overview import overviews
from dsa.analysis.output.report.use import use
from dsa.study.publish import summary

ENOUGH = 20  # seeds that can show no loss over three comparisons


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)


def answer(losses: dict[str, Any], seeds: int = ENOUGH, fails: dict[str, set[int]] | None = None, **changes) -> Best:
    """The answer of a made-up study; a is the baseline, and each further letter is cheaper.

    Args:
        fails: seeds in which a condition loses 1.5 nats more.
    """

    def each(run, result):
        failed = run["seed"] in (fails or {}).get(run["label"], set())
        return result | {"val_loss": result["val_loss"] + 1.5 * failed}

    (only,) = analyse(made_up(losses, seeds=seeds, each=each, **changes)).best
    return only


def test_a_cheap_condition_that_fails_in_some_seeds_is_not_recommended():
    """Nothing shows that it is worse, because it fails so differently: that is no reason to use it."""
    only = answer({"a": 1.05, "b": 1.06, "d": 1.05}, seeds=10, fails={"d": {0, 3, 7}}, seed=1)
    assert "d" not in only.worse
    assert only.recommended == "a"


def test_one_that_has_hardly_begun_does_not_take_the_others_seeds_along():
    def each(run, result):
        return None if run["label"] == "c" and run["seed"] > 2 else result

    (only,) = analyse(made_up({"a": 1.2, "b": 1.19, "c": 1.1}, seeds=20, each=each)).best
    assert only.seeds == 20 and only.best == "b"
    assert only.sentence.endswith("Left out, as few of their seeds are finished: c.")


def test_noise_recommends_the_best_mean_and_says_that_it_is_no_more():
    only = answer({"a": 1.2, "b": 1.19, "c": 1.2, "d": 1.21}, noise=0.1, seed=1)
    assert only.recommended == only.best
    assert not only.shown
    assert ONLY_BEST in only.sentence
    assert "not shown to be worse" not in only.sentence


def test_ten_seeds_show_no_loss_of_the_cheaper_twin_so_it_is_not_recommended():
    only = answer({"a": 1.2, "b": 1.2005, "d": 1.2005}, seeds=10, noise=0.0001)
    assert only.recommended == "a" and ONLY_BEST in only.sentence


def test_the_cheapest_that_is_shown_to_lose_nothing_is_recommended():
    only = answer({"a": 1.2, "b": 1.201, "c": 1.201, "d": 1.3})
    assert set(only.lossless) == {"b", "c"}
    assert only.recommended == "c" and only.shown
    assert only.sentence == (
        "At 64: c: the cheapest that is shown to lose nothing against a (20 of 20 seeds within 0.01 of a)."
    )


@pytest.mark.slow
def test_a_better_one_loses_nothing_either():
    only = answer({"a": 1.2, "b": 1.1, "c": 1.101, "d": 1.3})
    assert set(only.lossless) == {"b", "c"}
    assert only.recommended == "c"


def test_the_cheapest_that_loses_nothing_is_recommended_also_where_a_dearer_one_is_better():
    only = answer({"a": 1.2, "b": 1.1, "d": 1.2})
    assert "d" in only.lossless and "d" in only.worse
    assert only.recommended == "d" and only.best == "b"


@pytest.mark.slow
def test_those_that_cost_the_same_are_all_named():
    only = answer({"a": 1.2, "like": 1.2, "likewise": 1.19})
    assert only.recommended == "likewise" and only.alike == ("like",) and only.sentence.endswith(" As cheap: like.")
    assert answer({"a": 1.2, "b": 1.2}).alike == ()


def test_a_baseline_that_is_cheaper_than_its_equals_stays():
    only = answer({"d": 1.2, "a": 1.2, "b": 1.3})
    assert only.lossless == ("a",)
    assert only.recommended == "d" and only.shown
    assert "the baseline: nothing cheaper is shown to lose nothing" in only.sentence


def test_without_a_margin_no_loss_is_shown_of_what_equals_the_baseline():
    only = answer({"a": 1.2, "d": 1.2}, margin={})
    assert not only.shown and only.recommended == only.best and ONLY_BEST in only.sentence


def test_where_nothing_is_ranked_nothing_is_recommended():
    controls = {"dense": 1.0, "oracle": 1.0, "window": 1.0, "random": 2.0}
    only = answer({"a": 1.2, "d": 1.2}, controls=controls)
    assert only.recommended is None and not only.shown
    assert "nothing is recommended" in only.sentence


def test_a_dashboard_is_told_what_a_recommendation_is_worth():
    verdict = {"verdict": "inconclusive", "sentence": "", "finished": 0, "gaps": []}
    (only,) = analyse(made_up({"a": 1.2, "b": 1.19}, noise=0.1, seed=1)).best
    told = summary(verdict | {"best": [vars(only)]})
    assert told["best/L64/shown"] is False
    assert ONLY_BEST in told["best/L64/sentence"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_what_is_recommended_as_lossless_never_fails_in_a_fifth_of_its_seeds(seed):
    failing = set(np.random.default_rng(seed).choice(ENOUGH, 4, replace=False).tolist())
    only = answer({"a": 1.2, "b": 1.2, "c": 1.2, "d": 1.2}, fails={"d": failing}, seed=seed)
    assert "d" not in only.lossless and only.recommended != "d"


def test_a_dearer_one_that_is_better_certifies_nothing_of_the_baseline():
    """The baseline is shown to be worse, so it stands for being the cheapest, not for losing nothing."""
    done = analyse(made_up({"d": 1.3, "a": 1.1, "b": 1.35}, seeds=ENOUGH))
    (only,) = done.best
    assert only.recommended == "d" and only.lossless == ("a",) and "d" in only.worse
    assert only.standing == BEHIND and not only.shown
    assert only.sentence == (
        "At 64: d, the baseline: nothing cheaper is shown to lose nothing against it, and it is shown to be worse than "
        "a (20 seeds)."
    )
    told = [[cell.text for cell in row] for grid in (best_grid(done), use(done)) for row in grid.rows]
    assert not any(cell == "shown to lose nothing" for row in told for cell in row)
    assert any("another is shown to be better" in cell for cell in told[1])
    (line,) = [line for overview in overviews(done) for line in overview.lines if line.mark]
    assert (line.label, line.mark) == ("d", "nothing cheaper is shown to do")


@pytest.mark.parametrize(
    ("losses", "standing", "shown"),
    [
        ({"a": 1.2, "c": 1.2}, LOSSLESS, True),
        ({"d": 1.2, "a": 1.2}, BASELINE, True),
        ({"d": 1.3, "a": 1.1}, BEHIND, False),
        ({"a": 1.2, "c": 1.3}, ONLY_BEST, False),
    ],
)
def test_each_recommendation_has_a_standing_that_the_schema_knows(losses, standing, shown):
    only = answer(losses)
    assert (only.standing, only.shown) == (standing, shown)
    schema = json.loads(files("dsa.analysis.output").joinpath("verdict.schema.json").read_text())
    assert only.standing in schema["properties"]["best"]["items"]["properties"]["standing"]["enum"]
