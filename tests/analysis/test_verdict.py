"""Studies with a known truth, through the whole analysis."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up import made_up, meta_of, named, result_of, words

from dsa.analysis.inputs.prepared import assemble
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.compare import compare
from dsa.analysis.output.files import finite, record

pytestmark = pytest.mark.usefixtures("few_draws")


@pytest.mark.slow
def test_planted_effects_are_found_and_told_apart():
    done = analyse(made_up({"a": 1.2, "b": 1.1, "c": 1.3, "d": 1.2}, seeds=20))
    assert words(done) == {("b", 64): "better", ("c", 64): "worse", ("d", 64): "equivalent"}
    assert done.answer == "supported"
    assert "b against a at 64: better" in done.sentence


@pytest.mark.slow
def test_more_accuracy_is_better():
    def each(run, result):
        return result | {
            "val_accuracy": 1.5 - result["val_loss"] / 2,
            "dense_val_accuracy": 1.5 - result["dense_val_loss"] / 2,
        }

    changes = {"metric": "val_accuracy", "margin": {"val_accuracy": 0.01}}
    done = analyse(made_up({"a": 1.2, "b": 1.1, "c": 1.3}, each=each, **changes))
    assert words(done, "val_accuracy") == {("b", 64): "better", ("c", 64): "worse"}
    assert done.best[0].best == "b"
    assert done.answer == "supported"


@pytest.mark.slow
def test_noise_wider_than_the_margin_is_inconclusive_and_says_what_could_be_seen():
    done = analyse(made_up({"a": 1.2, "b": 1.2}, noise=0.05, seed=1))
    (only,) = [c for c in done.comparisons if c.metric == "val_loss"]
    assert only.word == "inconclusive"
    assert only.difference.detectable > 0.05
    assert "could have seen" in only.sentence
    assert done.answer == "inconclusive"


def test_a_significant_difference_inside_the_margin_is_equivalent():
    done = analyse(made_up({"a": 1.2, "b": 1.203}, noise=0.0005, seeds=14))
    (only,) = [c for c in done.comparisons if c.metric == "val_loss"]
    assert only.p < 0.05
    assert only.word == "equivalent"


def test_without_a_margin_nothing_is_equivalent():
    done = analyse(made_up({"a": 1.2, "b": 1.2}, margin={}, seed=1))
    assert words(done) == {("b", 64): "inconclusive"}


def test_identical_conditions_are_one_condition():
    def each(run, result):
        twin = {"b": "a"}.get(run["label"])
        if twin is None:
            kept[run["label"], run["seed"]] = result
            return result
        return kept[twin, run["seed"]]

    kept: dict = {}
    done = analyse(made_up({"a": 1.2, "b": 9.9, "c": 1.3}, each=each, seeds=20))
    (sentence,) = named(done, "identical conditions")
    assert "a, b are one condition" in sentence
    assert words(done)["b", 64] == "equivalent"
    assert {p.label for p in done.points} == {"a", "c", "dense"}


@pytest.mark.parametrize("opponent", ["random", "window"])
def test_a_study_whose_dense_does_not_beat_a_control_ranks_nothing(opponent):
    controls = {"dense": 1.0, "oracle": 1.0, "window": 1.5, "random": 2.0} | {opponent: 1.0}
    done = analyse(made_up({"a": 1.2, "b": 1.1, "c": 1.3}, controls=controls))
    assert done.answer == "cannot discriminate"
    assert opponent in done.sentence
    assert done.best[0].best is None and done.best[0].recommended is None
    assert done.points == []
    assert done.headroom == []


def test_missing_controls_cannot_discriminate():
    def each(run, result):
        return None if run["label"] == "random" else result

    assert analyse(made_up({"a": 1.2, "b": 1.1}, each=each)).answer == "cannot discriminate"


@pytest.mark.slow
def test_only_the_lengths_that_discriminate_are_ranked():
    controls = {"dense": 1.0, "oracle": 1.0, "window": {64: 1.0, 128: 1.5}, "random": 2.0}
    done = analyse(made_up({"a": 1.2, "b": 1.1}, lengths=(64, 128), controls=controls))
    assert [b.best for b in done.best] == [None, "b"]
    assert "64" in named(done, "cannot discriminate")[0]


@pytest.mark.parametrize("seed", range(3))
def test_random_tokens_end_in_cannot_discriminate(seed):
    """Every loss is the entropy of the tokens and a little noise, whatever attention does."""
    controls = dict.fromkeys(["dense", "oracle", "window", "random"], 4.16)
    done = analyse(
        made_up(
            {"a": 4.16, "b": 4.16, "c": 4.16},
            controls=controls,
            seed=seed,
            seeds=10,
            between=0.0,
            each=lambda run, result: result | {"unigram_loss": 4.16},
            hypothesis={"claim": "cannot_discriminate"},
        )
    )
    assert done.answer == "cannot discriminate"
    assert named(done, "uninformative loss") or "unigram" in done.sentence
    assert all(b.best is None for b in done.best)
    assert {c.word for c in (*done.comparisons, *done.to_dense)} == {"cannot discriminate"}
    assert not any(word in str(record(done)["comparisons"]) for word in ("better", "worse", "equivalent", "inconcl"))


@pytest.mark.slow
def test_a_planned_sink_window_has_to_be_beaten_too():
    losses, controls = {"a": 1.2, "b": 1.1}, {"dense": 1.0, "oracle": 1.0, "window": 1.5, "random": 2.0}
    assert analyse(made_up(losses, controls=controls | {"sink_window": 1.3})).answer == "supported"
    done = analyse(made_up(losses, controls=controls | {"sink_window": 1.0}))
    assert done.answer == "cannot discriminate"
    assert "sink_window" in done.sentence and "What to do" in done.sentence


@pytest.mark.slow
def test_a_control_that_is_confidently_wrong_counts_as_chance():
    """A window at nine nats where chance is four says no more than one at four."""
    losses, controls = {"a": 4.0, "b": 4.1}, {"dense": 3.99, "oracle": 3.99, "window": 9.0, "random": 9.0}
    noise = {"noise": 0.5, "between": 0.0, "controls": controls}
    told = {"unigram_loss": 9.0, "chance_loss": 4.0}
    assert (
        analyse(made_up(losses, **noise, each=lambda run, result: result | {"unigram_loss": 9.0}))
        .discrimination[0]
        .possible
    )
    done = analyse(made_up(losses, **noise, each=lambda run, result: result | told))
    assert done.answer == "cannot discriminate"


@pytest.mark.slow
def test_too_many_differences_for_the_seeds_are_said_to_be_so():
    losses = {chr(ord("a") + i): 1.2 + 0.01 * i for i in range(5)}
    claim = {"hypothesis": {"claim": "order_depends_on_length"}}
    done = analyse(made_up(losses, lengths=(64, 128), **claim))
    assert "only 0 of 20 differences" in done.sentence and "So many take 10 seeds" in done.sentence


def test_better_than_dense_is_a_leak_until_explained():
    done = analyse(made_up({"a": 1.2, "b": 0.8}))
    assert "leak" in named(done, "better than dense")[0]
    assert done.best[0].best == "a"


def test_a_loss_at_the_unigram_entropy_is_kept_out_of_the_ranking():
    done = analyse(made_up({"a": 1.2, "b": 3.0}))
    assert named(done, "uninformative loss")
    assert {p.label for p in done.points} == {"a", "dense"}
    assert {c.word for c in (*done.comparisons, *done.to_dense) if c.label == "b"} == {"cannot discriminate"}


def test_dense_attention_that_is_better_and_cheaper_dominates_in_what_it_costs_alone():
    def dear(run, result):
        return result | {"flops": result["flops"] | {"dense_attention": 1.0}}

    points = analyse(made_up({"a": 1.2, "b": 1.1}, seeds=20, each=dear)).points
    assert all("dense" in p.dominated_by for p in points if p.cost == "flops" and p.label != "dense")
    assert "dense" not in {p.label for p in points if p.cost == "indexer_params"}
    assert not any("dense" in p.dominated_by for p in points if p.cost == "indexer_params")


@pytest.mark.slow
def test_what_was_not_trained_jointly_is_not_shown_as_if_it_had_been():
    def untouched(run, result):
        return result | {"val_loss": result["swap_val_loss"]}

    swapped = {"metric": "swap_val_loss", "hypothesis": {"claim": "some_condition_differs"}}
    alone = analyse(made_up({"a": 1.2, "b": 1.1}, each=untouched, **swapped))
    assert {q.metric for q in alone.qualities} == {"swap_val_loss"}
    both = analyse(made_up({"a": 1.2, "b": 1.1}, **swapped))
    assert {q.metric for q in both.qualities} == {"swap_val_loss", "val_loss"}


def test_too_few_seeds_claim_nothing():
    done = analyse(made_up({"a": 1.2, "b": 1.0}, seeds=3))
    assert words(done) == {("b", 64): "inconclusive"}
    assert named(done, "too few seeds")
    assert done.answer == "inconclusive"


def test_an_exploratory_study_claims_nothing_however_many_its_seeds():
    done = analyse(made_up({"a": 1.2, "b": 1.0}, exploratory=True))
    assert done.answer == "inconclusive"
    assert "points to: supported" in done.sentence


def test_missing_and_failed_runs_are_listed_and_pairs_stay_pairs():
    def each(run, result):
        if run["label"] == "b" and run["seed"] == 1:
            return None
        if run["label"] == "a" and run["seed"] == 0:
            return {"status": "failed", "error": {"category": "memory", "reason": "killed"}}
        return result

    whole = made_up({"a": 1.2, "b": 1.1}, seeds=9)
    lacking = made_up({"a": 1.2, "b": 1.1}, seeds=9, each=each)
    done = analyse(lacking)
    assert [(g.label, g.seed, g.state) for g in lacking.gaps] == [("a", 0, "failed"), ("b", 1, "missing")]
    assert "memory: killed" in named(done, "failed runs")[0]
    assert "b at 64: 1 runs missing" in named(done, "missing runs")[0]
    (only,) = [c for c in done.comparisons if c.metric == "val_loss"]
    theirs = whole.runs.pivot(index="seed", columns="label", values="val_loss").loc[2:]
    assert only.difference.seeds == 7
    assert only.difference.mean == pytest.approx((theirs["b"] - theirs["a"]).mean())


def test_an_unstarted_study_says_so():
    done = analyse(made_up({"a": 1.2, "b": 1.1}, each=lambda run, result: None))
    assert done.answer == "cannot discriminate"
    assert record(done)["finished"] == 0


@pytest.mark.slow
def test_the_order_of_rows_changes_nothing():
    prepared = made_up({"a": 1.2, "b": 1.19, "c": 1.3}, noise=0.02)
    order = np.random.default_rng(1).permutation(len(prepared.runs))
    shuffled = replace(prepared, runs=prepared.runs.iloc[order].reset_index(drop=True))
    assert record(analyse(shuffled)) == record(analyse(prepared))


def test_a_headroom_is_recovered_in_the_share_that_was_planted():
    done = analyse(made_up({"a": 1.1, "b": 1.4}))
    found = {h.label: h for h in done.headroom if h.metric == "val_loss"}
    assert found["a"].recovered == pytest.approx(0.8, abs=0.01)
    assert found["b"].recovered == pytest.approx(0.2, abs=0.01)
    assert found["random"].recovered == pytest.approx(-1.0, abs=0.02)
    low, high = found["a"].recovered_interval
    assert low < found["a"].recovered < high
    assert found["a"].headroom_interval[0] < 0.5 < found["a"].headroom_interval[1]


def test_both_scales_stand_side_by_side():
    done = analyse(made_up({"a": 1.2, "b": 1.1}))
    assert {q.metric for q in done.qualities} == {"val_loss", "swap_val_loss"}
    dense = {q.metric: q.mean for q in done.qualities if q.label == "dense"}
    assert dense["swap_val_loss"] == pytest.approx(dense["val_loss"] + 0.02)


def test_the_comparisons_of_a_length_are_corrected_together():
    done = compare(
        made_up({"a": 1.2, "b": 1.21, "c": 1.2, "d": 1.22}, lengths=(64, 128), noise=0.02),
        "val_loss",
        {(64, ""), (128, "")},
    )
    for length in (64, 128):
        mine = [c for c in done if c.seq_len == length]
        smallest = min(mine, key=lambda c: c.difference.p)
        assert smallest.p == pytest.approx(min(1.0, 3 * smallest.difference.p))
        assert {c.comparisons for c in mine} == {3}


def test_what_is_undefined_becomes_null():
    assert finite({"a": [float("nan"), 1.0], "b": (float("inf"),)}) == {"a": [None, 1.0], "b": [None]}


def test_a_frame_keeps_every_finished_run():
    prepared = made_up({"a": 1.2, "b": 1.1})
    assert len(prepared.runs) == 8 * 6
    assert isinstance(prepared.runs, pd.DataFrame)


def test_the_plan_says_which_controls_belong_to_a_condition():
    meta = meta_of({"small-a": {"model.d_model": 64}, "large-a": {"model.d_model": 128}})
    runs = [
        run | {"label": label, "context": context}
        for run in meta.runs
        if run["label"] in ("small-a", "large-a", "window")
        for label, context in {
            "small-a": [("small-a", "d_model64")],
            "large-a": [("large-a", "d_model128")],
            "window": [("window-d_model64", "d_model64"), ("window-d_model128", "d_model128")],
        }[run["label"]]
    ]
    meta = replace(meta, runs=runs)
    losses = {"small-a": 1.2, "large-a": 1.1, "window-d_model64": 1.5, "window-d_model128": 1.4}
    prepared = assemble(meta, [result_of(run, losses[run["label"]], 1.0, 1.5) for run in runs])
    assert prepared.contexts == ["d_model64", "d_model128"]
    assert [prepared.control("window", context) for context in prepared.contexts] == [
        "window-d_model64",
        "window-d_model128",
    ]


@pytest.mark.slow
def test_equal_mean_budgets_that_differ_where_it_counts_are_told():
    def each(run, result):
        mean, asked = {"a": (30.0, 32.0), "b": (31.0, 60.0), "c": (60.0, 64.0)}.get(run["label"], (256.0, 200.0))
        return result | {"mean_k": mean, "selection": {"mean": {"mean_k_asked": asked}}}

    (told,) = named(analyse(made_up({"a": 1.2, "b": 1.1, "c": 1.3}, each=each)), "other budgets where asked")
    assert "a 32 (mean over all 30), b 60 (mean over all 31)" in told and "c " not in told
    assert not named(analyse(made_up({"a": 1.2, "b": 1.1})), "other budgets where asked")


@pytest.mark.slow
def test_budgets_of_selectors_that_were_not_recorded_where_it_counts_are_told():
    made = made_up({"a": 1.2, "b": 1.1}, each=lambda run, result: result | {"selection": {"mean": {"kl_asked": 0.1}}})
    for options, known in (({"selector": "topk"}, 0), ({"selector": "adaptive_entropy"}, 1)):
        meta = replace(made.meta, conditions={"a": {"selector": "topk"}, "b": options})
        assert len(named(analyse(replace(made, meta=meta)), "other budgets where asked")) == known


@pytest.mark.slow
def test_what_different_numbers_of_threads_trained_is_told():
    def each(run, result):
        count = 2 if run["label"] == "b" else 1
        of = {"base": 1 + run["seed"] % 2, "joint": count}  # a base is shared by all of a seed
        return result | {"provenance": result["provenance"] | {"threads_of": of}}

    (told,) = named(analyse(made_up({"a": 1.2, "b": 1.1, "c": 1.3}, each=each)), "different numbers of threads")
    assert "a 1, b 2, c 1" in told
    same = made_up({"a": 1.2, "b": 1.1}, each=lambda run, result: each(run | {"label": "a"}, result))
    assert not named(analyse(same), "different numbers of threads")
