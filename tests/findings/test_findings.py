"""What several studies say together: planted truths are named, missing ones too."""

import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from analysis.made_up import made_up
from planted import indexers, sized, study, timed

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.report.answer import opening
from dsa.analysis.output.report.words import listed
from paper.claims import CLAIMS, claims_page, told_once
from paper.evaluate import Evaluated, best_at, fewer_parameters, loss_within
from paper.evaluate_times import faster, gains_change
from paper.evidence import order
from paper.first import first_page, pretrained_page
from paper.formats import against_exact, summary
from paper.markdown import framed, percent, table
from paper.page import findings_page
from paper.smallest import smallest
from paper.source import EARLY, Study
from paper.times import Times

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Few bootstrap draws."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 199)


def test_the_planted_equivalent_indexer_is_named_as_the_smallest():
    done = analyse(indexers({"h4d64": 1.2, "h2d32": 1.201, "h1d16": 1.3}))
    (found,) = smallest(done, "val_loss")
    assert (found.label, found.parameters) == ("h2d32", 12544)
    assert found.share == pytest.approx(12544 / 41472)
    assert [c.word for c in found.smaller] == ["worse"]
    assert "**h2d32** (" in found.sentence and "Worse: h1d16" in found.sentence


def test_the_smallest_of_several_equivalents_wins():
    (found,) = smallest(analyse(indexers({"h4d64": 1.2, "h2d32": 1.3, "h1d16": 1.2})), "val_loss")
    assert found.label == "h1d16"


def test_noise_names_none_and_says_what_could_have_been_seen():
    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2, "h1d16": 1.2}, noise=0.05, seed=1)
    (found,) = smallest(analyse(prepared), "val_loss")
    assert found.label is None
    assert "inconclusive" in found.sentence and "could have been seen" in found.sentence


def test_worse_everywhere_is_said_plainly():
    (found,) = smallest(analyse(indexers({"h4d64": 1.2, "h2d32": 1.3, "h1d16": 1.4})), "val_loss")
    assert found.label is None
    assert "none; every smaller indexer is worse" in found.sentence


def test_nothing_is_named_where_nothing_can_be_discriminated():
    controls = {"dense": 1.0, "oracle": 1.0, "window": 1.0, "random": 2.0}
    (found,) = smallest(analyse(indexers({"h4d64": 1.2, "h2d32": 1.2}, controls=controls)), "val_loss")
    assert found.label is None
    assert "cannot discriminate" in found.sentence


def test_without_studies_every_answer_is_not_run_and_every_claim_not_tested():
    page = findings_page({})
    short = page.split("## In short")[1].split("##")[0].strip().splitlines()
    assert len(short) == 4 and all("not run" in line for line in short)
    assert page.count("not run") >= 4 + 5
    evaluated = [answer for claim in CLAIMS for answer in claim.evaluate({})]
    assert {answer.verdict for answer in evaluated} == {"not tested"}
    assert len(evaluated) == len(CLAIMS)


def test_missing_lengths_and_runs_are_listed():
    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2}, lengths=(128,))
    page = findings_page(order([study(replace(prepared, runs=prepared.runs.iloc[:-3]))]))
    cut = page.split("## What was cut")[1]
    assert "optimal_indexer_config at 64, 256 and 512: not run." in cut
    assert "baseline_vs_optimized_text (h4d64 against three small indexers, on text): not run." in cut


def formatted(losses: dict[str, float]) -> Prepared:
    """Labels are indexer-format."""
    prepared = made_up(losses, seeds=20, name="quantization_effectiveness")
    parts = {label: label.split("-") for label in losses}
    conditions = {label: {"indexer": indexer, "precision": name} for label, (indexer, name) in parts.items()}
    return replace(prepared, meta=replace(prepared.meta, conditions=conditions))


def test_a_format_is_compared_with_fp32_of_its_own_indexer():
    losses = {"a-fp32": 1.2, "a-fp16": 1.2, "a-int4": 1.2, "b-fp32": 1.5, "b-fp16": 1.5, "b-int4": 1.6}
    done = analyse(formatted(losses))
    compared = against_exact(done, "val_loss")
    assert {(c.label, c.reference, c.word) for c in compared} == {
        ("a-fp16", "a-fp32", "equivalent"),
        ("a-int4", "a-fp32", "equivalent"),
        ("b-fp16", "b-fp32", "equivalent"),
        ("b-int4", "b-fp32", "worse"),
    }
    assert {c.comparisons for c in compared} == {4}
    told = summary(done, compared)
    assert told == "nothing is lost in any comparison: fp16; worse in some comparison: int4"
    page = findings_page(order([study(formatted(losses))]))
    assert "worse: +0." in page and "Worse: b-int4 at 64" in page


def test_times_become_gains_with_intervals_only_where_turns_were_kept():
    ms = {"h4d64": [100.0, 102.0, 98.0], "h2d32": [80.0, 81.0, 79.0]}
    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2})

    def gain_of(**record):
        return Times(replace(prepared, timing=record)).gain("h2d32", "h4d64", 64, "step_ms")

    gain = gain_of(**{"64": timed(ms)})
    assert gain.share == pytest.approx(0.2, abs=0.01)
    assert gain.interval[0] < 0.2 < gain.interval[1]
    assert gain_of(**{"64": timed(ms, turns=False)}).interval is None
    assert gain_of() is None


def test_times_of_attention_under_a_mask_decide_nothing():
    ms = {"h4d64": [100.0, 101.0, 99.0], "h2d32": [80.0, 80.4, 79.8]}

    def masked(run, result):
        return sized(run, result) | {"speed_is_real": run["label"] != "h2d32"}

    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2}, each=masked)
    (told,) = faster("step_ms", "h2d32", "h4d64", 0.1, 64)(order([study(prepared, {"64": timed(ms)})]))
    assert told.verdict == "inconclusive" and "under a mask" in told.why


def words(evaluate, *studies: Study) -> list[str]:
    return [answer.verdict for answer in evaluate(order(list(studies)))]


def test_claims_of_speed_are_judged_by_the_interval():
    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2})
    ms = {"h4d64": [100.0, 101.0, 99.0, 100.5], "h2d32": [80.0, 80.4, 79.8, 80.1]}
    alone, beside = study(prepared, {"64": timed(ms)}), study(prepared, {"64": timed(ms, contended=True)})
    for least, verdict in ((0.1, "supported"), (0.4, "not supported"), (0.2, "inconclusive")):
        assert words(faster("step_ms", "h2d32", "h4d64", least, 64), alone) == [verdict]
    assert words(faster("step_ms", "h2d32", "h4d64", 0.1, 64), beside) == ["inconclusive"]
    (old,) = faster("step_ms", "h2d32", "h4d64", 0.1, 64)(order([study(prepared, {"64": timed(ms, fresh=False)})]))
    assert old.verdict == "inconclusive" and old.why.startswith("turns were not taken in at least 5 fresh processes")
    assert words(faster("step_ms", "h2d32", "h4d64", 0.1, 128), alone) == ["not tested"]
    assert words(faster("infer_ms", "h2d32", "h4d64", 0.1), alone) == ["not tested"]


def test_gains_that_grow_do_not_shrink():
    prepared = indexers({"h4d64": 1.2, "h2d32": 1.2}, lengths=(64, 128))
    short = timed({"h4d64": [100.0, 101.0, 99.0], "h2d32": [90.0, 91.2, 88.9]})
    long = timed({"h4d64": [200.0, 201.0, 199.0], "h2d32": [100.0, 101.0, 99.1]})
    one = study(prepared, {"64": short, "128": long})
    assert words(gains_change("step_ms", "h2d32", "h4d64", 1), one) == ["supported"]
    assert words(gains_change("step_ms", "h2d32", "h4d64", -1), one) == ["not supported"]
    stale = study(prepared, {"64": short, "128": {name: part for name, part in long.items() if name != "processes"}})
    assert words(gains_change("step_ms", "h2d32", "h4d64", 1), stale) == ["inconclusive"]


def test_claims_of_parameters_loss_and_the_best_indexer():
    one = study(indexers({"h4d64": 1.2, "h2d32": 1.1, "h1d16": 1.2}))
    assert words(fewer_parameters("h2d32", "h4d64", 0.697), one) == ["supported"]
    assert words(fewer_parameters("h1d16", "h4d64", 0.697), one) == ["not supported"]
    assert words(loss_within("h2d32", "h4d64", 0.0001), one) == ["not supported"]
    assert words(loss_within("h2d32", "h4d64", 0.2), one) == ["supported"]
    assert words(best_at("h2d32", 64, "optimal_indexer_config"), one) == ["supported"]
    assert words(best_at("h4d64", 64, "optimal_indexer_config"), one) == ["not supported"]
    tied = study(indexers({"h4d64": 1.2, "h2d32": 1.2}))
    assert words(best_at("h2d32", 64, "optimal_indexer_config"), tied) == ["inconclusive"]


def test_runs_that_two_studies_share_count_once():
    mine = indexers({"h4d64": 1.2, "h2d32": 1.2})
    other = replace(mine, meta=replace(mine.meta, name="baseline_vs_optimized"))
    assert len(loss_within("h2d32", "h4d64", 0.01)(order([study(mine), study(other)]))) == 1


def test_random_tokens_are_told_by_their_verdict():
    controls = dict.fromkeys(("dense", "oracle", "window", "random"), 2.99)
    losses = {"h4d64": 2.99, "h2d32": 2.99}
    hypothesis = {"claim": "cannot_discriminate", "metric": "val_loss"}
    prepared = indexers(losses, name="noise_control", controls=controls, hypothesis=hypothesis)
    page = findings_page(order([study(prepared)]))
    assert "- Random tokens: **cannot discriminate**" in page
    assert words(loss_within("h2d32", "h4d64", 0.5), study(prepared)) == ["inconclusive"]


def test_a_table_has_a_dash_where_a_value_is_missing():
    frame = pd.DataFrame({"name": ["a", None], "since": [float("nan"), 64.0]})
    assert framed(frame).splitlines()[2:] == ["| a | – |", "| – | 64.0 |"]


def test_the_first_page_has_five_questions_and_answers_only_those_whose_study_is_here():
    page = first_page({})
    assert re.findall(r"^## (\d)\. .*\?$", page, re.MULTILINE) == list("12345")
    assert page.count("Not answered yet") == 5 and "python sweep.py study=k_value_optimization" in page
    one = study(indexers({"h4d64": 1.2, "h2d32": 1.3}, question="Which?"))
    other = study(indexers({"h4d64": 1.2, "h2d32": 1.3}, name="mine", question="And else?"))
    page = first_page(order([one, other]))
    said = opening(one.analysis)
    answered = page.split("## 1. Which?")[1].split("## 2. ")[0]
    assert said == "h2d32 is worse than h4d64 at 64 tokens (20 seeds, after joint training)."
    assert f"**{said}**" in answered and "(optimal_indexer_config/differences.png)" in answered
    assert page.count("Not answered yet") == 4
    assert f"- [mine](mine/README.md). And else? **{said}**" in page.split("## What else was asked")[1]


def test_a_question_is_answered_by_the_first_of_its_studies_that_decides_its_claim():
    claims = {
        "k_value_optimization": "order_depends_on_length",
        "k_value_optimization_256": "some_condition_differs",
    }
    both = [
        study(indexers({"h4d64": 1.2, "h2d32": 1.3}, name=name, hypothesis={"claim": claim, "metric": "val_loss"}))
        for name, claim in claims.items()
    ]
    page = first_page(order(both))
    third = page.split("## 3. ")[1].split("## 4. ")[0]
    assert both[0].analysis.answer == "inconclusive" and f"**{opening(both[1].analysis)}**\n\n!" in third
    assert "- [k_value_optimization](k_value_optimization/README.md)." in third and "What else" not in page


def test_a_study_of_a_pretrained_model_has_a_section_that_says_it_is_one_model():
    def certified(run: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        return sized(run, result) | {"model": "tiny", "certificate": {"identity": 0.0}}

    prepared = indexers({"h4d64": 1.2, "h2d32": 1.3}, name="mine", question="Which?", each=certified, between=0.0)
    one = order([study(prepared)])
    page = first_page(one)
    assert f"- [mine](mine/README.md). Which? **{opening(one['mine'].analysis)}**" in page
    said = pretrained_page(one).split("## Which?")[1]
    assert "Of tiny, as it is; 20 draws" in said and "one model" in said
    dense = prepared.rows("dense", 64)["val_loss"].mean()
    assert f"at 64 tokens dense {dense:.3f}, oracle 1.00" in said and "(mine/differences.png)" in said
    assert "What else was asked" not in page


def test_a_question_leads_to_what_its_own_study_does_not_ask():
    beside = study(indexers({"h4d64": 1.2, "h2d32": 1.3}, name="head_weights", question="Do signs harm?"))
    page = first_page(order([study(indexers({"h4d64": 1.2, "h2d32": 1.3})), beside]))
    first, rest = page.split("## 1. ")[1].split("## 2. ")
    assert "Do signs harm?" in first and "Do signs harm?" in rest


def test_a_study_of_recall_that_version_01_ran_is_marked():
    early = study(indexers({"h4d64": 1.2, "h2d32": 1.3}, name="old", common={"data": "mqar"}))
    solved = {"base_training": {"steps": 500}}
    late = indexers(
        {"h4d64": 1.2, "h2d32": 1.3}, name="new", common={"data": "mqar"}, each=lambda run, r: sized(run, r) | solved
    )
    lines = {line.split("]")[0]: line for line in first_page(order([early, study(late)])).splitlines()}
    assert lines["- [old"].endswith(EARLY) and EARLY not in lines["- [new"]


def test_a_page_of_claims_has_a_row_for_every_claim():
    page = claims_page({})
    assert all(f"| {claim.text} |" in page for claim in CLAIMS)


def test_what_may_not_be_judged_for_one_reason_has_one_row():
    same = [Evaluated(f"s, {n}", "1 %", "inconclusive", f"no turns (time {n})", barred=True) for n in (64, 128)]
    rest = [
        Evaluated("s, 256", "2 %", "inconclusive", "wide"),
        Evaluated("s, 512", "3 %", "inconclusive", "wide"),
        Evaluated("every study", "4 %", "supported", "counted"),
        Evaluated("every study", "5 %", "supported", "counted"),
    ]
    joined = Evaluated("s, 64; s, 128", "–", "inconclusive", "no turns", barred=True)
    assert told_once([*same, *rest]) == [joined, *rest]
    assert told_once(same[:1]) == same[:1]


def test_words_of_numbers():
    assert percent(0.697) == "69.7 %"
    assert percent(-0.1, (-0.2, 0.05), sign=True) == "-10.0 [-20.0, +5.0] %"
    assert [listed([]), listed("a"), listed("ab"), listed("abc")] == ["", "a", "a and b", "a, b and c"]
    assert table(["x"], [["a|b"]]).endswith("| a\\|b |")
