"""How a report opens: the answer in a sentence, its picture, what to use and what that costs; and its words."""

import re
from dataclasses import asdict
from typing import Any

import pytest
from made_up import made_up

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis, analyse
from dsa.analysis.output.figures.every import charts
from dsa.analysis.output.report.answer import opening, picture, unit_of
from dsa.analysis.output.report.glossary import KINDS, METRICS, glossary
from dsa.analysis.output.report.grid import RUNS, VERSUS, grids
from dsa.analysis.output.report.page import page
from dsa.analysis.output.report.use import use
from dsa.analysis.output.report.words import names
from dsa.artifacts.names import CONTROLS

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 199)


def claiming(claim: str, losses: dict[str, Any], **changes: Any) -> Analysis:
    hypothesis = {"claim": claim, "metric": "val_loss"} | changes.pop("hypothesis", {})
    return analyse(made_up(losses, hypothesis=hypothesis, **changes))


def test_a_difference_names_conditions_lengths_seeds_and_the_state_of_the_model():
    done = claiming("some_condition_differs", {"a": 1.2, "b": 1.3, "c": 1.1, "d": 1.2}, seed=2)
    assert opening(done) == (
        "b is worse than a at 64 tokens; c is better than a at 64 tokens (8 seeds, after joint training)."
    )
    untouched = claiming("some_condition_differs", {"a": 1.2, "b": 1.3}, metric="swap_val_loss")
    assert opening(untouched) == "b is worse than a at 64 tokens (8 seeds, backbone untouched)."


def test_many_conditions_are_counted():
    assert names(["a", "b", "c"]) == "a, b and c"
    assert names(["a", "b", "c", "d"]) == "a, b and 2 more"


def test_no_loss_shown_lost_and_open_are_told_apart():
    shown = claiming("no_quality_loss", {"a": 1.2, "b": 1.2}, seeds=20)
    assert opening(shown) == "b loses nothing against a at 64 tokens (20 seeds, after joint training)."
    lost = claiming("no_quality_loss", {"a": 1.2, "b": 1.3})
    assert opening(lost) == "b is worse than a at 64 tokens (8 seeds, after joint training)."
    open_ = claiming("no_quality_loss", {"a": 1.2, "b": 1.2}, noise=0.05, seed=2)
    assert re.fullmatch(
        r"Not decided: whether b loses anything against a at 64 tokens; differences of less than [\d.]+ nats can "
        r"stay unseen in so many seeds \(8 seeds, after joint training\)\.",
        opening(open_),
    )


def test_why_it_cannot_be_said_is_said():
    few = claiming("some_condition_differs", {"a": 1.2, "b": 1.3}, seeds=3)
    assert "so few seeds carry no claim (3 seeds" in opening(few)
    declared = claiming("some_condition_differs", {"a": 1.2, "b": 1.3}, exploratory=True)
    assert "declared too small for a claim before it ran" in opening(declared)
    same = dict.fromkeys(("dense", "oracle", "window", "random"), 1.0)
    blind = claiming("some_condition_differs", {"a": 1.0, "b": 1.0}, controls=same)
    assert opening(blind).startswith("Nothing can be said about any condition at 64 tokens: there dense attention")
    assert picture(blind, charts(blind)).name == "quality"
    assert [cell.text for cell in use(blind).rows[0]][1:3] == ["nothing", "–"]


def test_other_claims_open_in_plain_words():
    planned = {"b or a": {"plus": ["b"], "minus": ["a"]}}
    contrast = claiming("contrasts_differ", {"a": 1.2, "b": 1.3}, contrasts=planned)
    assert re.match(r"“b or a”: b has more loss than a, by 0\.\d+ \[0\..*\] nats at 64 tokens", opening(contrast))
    fewer = claiming("contrasts_differ", {"a": 1.3, "b": 1.2}, contrasts=planned)
    assert "b has less loss than a, by 0." in opening(fewer) and "[0." in opening(fewer)
    assert picture(contrast, charts(contrast)).name == "contrasts"
    summed = claiming("contrasts_differ", {"a": 1.2, "b": 1.3}, contrasts={"b": planned["b or a"] | {"sums": True}})
    assert "“b”: b has together more loss than a, by 0." in opening(summed)
    front = claiming("on_pareto_front", {"a": 1.3, "b": 1.2}, hypothesis={"conditions": ["a"]})
    assert opening(front).startswith("Instead of a take b at 64 tokens")
    assert picture(front, charts(front)).name == "pareto_flops"
    order = claiming(
        "order_depends_on_length", {"a": {64: 1.1, 128: 1.3}, "b": 1.2}, lengths=(64, 128), seeds=12
    )  # fmt: skip
    assert opening(order).startswith(
        "Which one is better depends on the length: a is better than b at 64, worse at 128"
    )
    alone = claiming("order_depends_on_length", {"a": 1.1, "b": 1.2})
    assert "nothing can be ranked at a second length (8 seeds" in opening(alone)
    kept = claiming("order_depends_on_length", {"a": 1.1, "b": 1.2}, lengths=(64, 128), seeds=12)
    assert opening(kept).startswith("Every pair of conditions keeps its order at every length (12 seeds")


def test_a_contrast_of_what_may_not_be_ranked_is_not_said_to_be_too_small():
    """b is worse than a frequency of tokens: far from a, and no condition to be ranked."""
    planned = {"b or a": {"plus": ["b"], "minus": ["a"]}}
    blind = claiming("contrasts_differ", {"a": 1.2, "b": 3.5}, contrasts=planned)
    assert opening(blind).startswith("Not decided:") and "may not be ranked, which is told below" in opening(blind)
    assert any("uninformative" in guard.name for guard in blind.guards)
    assert "may not be ranked" not in opening(claiming("contrasts_differ", {"a": 1.2, "b": 1.2}, contrasts=planned))


def test_whether_seeds_are_few_is_asked_of_what_the_claim_rests_on():
    """Six seeds are enough for one contrast, and too few for comparisons of five conditions with the baseline."""
    losses = dict.fromkeys("abcdef", 1.2)
    few = [
        opening(claiming("contrasts_differ", losses, seeds=seeds, contrasts={"x": {"plus": ["b"], "minus": ["c"]}}))
        for seeds in (6, 5)
    ]
    assert re.search(r"differences of less than 0\.0\d* nats can stay unseen in so many seeds \(6 seeds", few[0])
    assert "so few seeds carry no claim (5 seeds" in few[1]
    assert "so few seeds carry no claim (6 seeds" in opening(claiming("some_condition_differs", losses, seeds=6))


def test_what_to_use_says_what_it_costs_and_on_what_it_rests():
    done = claiming("no_quality_loss", {"a": 1.2, "b": 1.2}, seeds=20)
    (row,) = use(done).rows
    length, name, loss, over_dense, success, operations, rests, best = (cell.text for cell in row)
    assert (
        (length, name) == ("64", "b") and rests == "the cheapest that is shown to lose nothing" and best in ("a", "b")
    )
    assert re.fullmatch(r"[-+]\S+ \[\S+, \S+\]", loss) and success == "100% [83%, 100%]" and operations == "10 %"
    assert over_dense.startswith("+0.2 [")


def test_a_recommendation_that_dense_attention_beats_says_so():
    def dear(run, result):
        return result | {"flops": result["flops"] | {"dense_attention": 1.0}}

    done = claiming("no_quality_loss", {"a": 1.2, "b": 1.2}, seeds=20, each=dear)
    (row,) = use(done).rows
    assert row[-2].text.endswith("but dense attention, which it would replace, costs less and loses less")


def test_what_is_only_the_best_measured_is_no_recommendation():
    done = claiming("no_quality_loss", {"a": 1.2, "b": 1.15, "c": 1.3}, seeds=4)
    (row,) = use(done).rows
    assert row[1].text == "nothing shown" and row[-2].text.startswith("no recommendation") and row[-1].text == "b"


def test_sentence_picture_and_costs_come_before_all_else_and_the_words_last():
    done = claiming("some_condition_differs", {"a": 1.2, "b": 1.3})
    text = page(done, charts(done))
    order = [opening(done), 'data-chart="differences"', "What to use, and what it costs", "How it was decided",
             "Everything at a glance", "<h2>Tables</h2>", "<h2>Words</h2>"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count('data-chart="differences"') == 1, "the picture is moved, not copied"


def test_every_metric_of_a_report_is_in_its_glossary():
    done = claiming("some_condition_differs", {"a": 1.2, "b": 1.3}, lengths=(64, 128))
    told = {field for entry in glossary(done) for field in entry.fields}
    named = {grid.name: grid.columns for grid in grids(done)}
    plain = {"label", "kind", "seq_len", "seed", "run_id"}
    assert {column for column in named["runs"] if column not in plain} <= told
    assert {q.metric for q in done.qualities} <= told
    words = {"length", "condition", "against", "metric", "seeds", "verdict"}
    assert set(VERSUS) - words <= told
    assert set(RUNS) - plain <= {field for entry in METRICS for field in entry.fields}
    assert set(SCALES) <= {field for entry in METRICS for field in entry.fields}


def test_controls_that_took_part_are_explained_and_no_others():
    done = claiming("some_condition_differs", {"a": 1.2, "b": 1.3})
    told = {entry.name for entry in glossary(done)}
    assert {"dense", "oracle", "window", "random"} <= told and "static" not in told
    assert set(CONTROLS) <= set(KINDS)
    assert all(asdict(entry)["meaning"] for entry in glossary(done))


def test_a_study_of_a_given_model_says_what_its_unit_is_and_what_may_not_be_concluded():
    def certified(run, result):
        return result | {"model": "tiny", "certificate": {"identity": 0.0}}

    assert unit_of(claiming("some_condition_differs", {"a": 1.2, "b": 1.3})) is None
    done = claiming("some_condition_differs", {"a": 1.2, "b": 1.3}, each=certified)
    told = unit_of(done)
    assert "draw of the indexers' initial weights and of the training text, 8 of them, on tiny as it is" in told
    assert "may not be concluded" in told
    text = page(done, charts(done))
    assert text.index(opening(done)) < text.index("may not be concluded") < text.index("What to use, and what it costs")


def test_what_the_tables_call_no_loss_and_standing_is_explained():
    told = {field: entry for entry in METRICS for field in entry.fields}
    assert "at most 80 % of seeds" in told["p_no_loss_holm"].meaning and "baseline" in told["standing"].meaning
