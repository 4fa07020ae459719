"""Differences that every seed measures on the same samples: the interval, and the command that prints it."""

import json
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from made_up import made_up as a_study

from dsa.analysis.__main__ import main
from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.prepared import assemble
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.judgement.samples import sampled
from dsa.analysis.output.files import record
from dsa.analysis.output.report.page import page
from dsa.analysis.statistics.by_sample import by_sample

STUDIES = 600


def made_up(rng, seeds, samples, of_seeds, of_samples, rest=1.0):
    """Differences of mean 0: an effect of each seed, which correlates its samples, one of each sample, and a rest."""
    own = of_seeds * rng.standard_normal((seeds, 1)) + of_samples * rng.standard_normal((1, samples))
    return own + rest * rng.standard_normal((seeds, samples))


@pytest.mark.parametrize(
    ("seeds", "samples", "of_seeds", "of_samples"),
    [(5, 64, 0.3, 0.0), (5, 64, 0.3, 0.3), (3, 64, 0.5, 0.1), (8, 64, 0.1, 0.5), (6, 32, 0.0, 0.0)],
)
def test_the_interval_holds_the_mean_as_often_as_it_says_where_samples_of_a_seed_are_correlated(
    seeds, samples, of_seeds, of_samples
):
    """95 % of 600 made-up studies, within three standard errors; more where nothing but the rest varies. Samples taken
    for independent ones hold it far less often, wherever seeds or samples have effects of their own."""
    rng, held, pooled = np.random.default_rng(0), 0, 0
    for _ in range(STUDIES):
        d = made_up(rng, seeds, samples, of_seeds, of_samples)
        low, high = by_sample(d).interval
        held += low <= 0 <= high
        pooled += abs(d.mean()) <= 1.96 * d.std() / d.size**0.5
    assert 0.923 < held / STUDIES < (0.977 if of_seeds or of_samples else 0.99)
    if of_seeds or of_samples:
        assert pooled / STUDIES < 0.8


def test_what_lies_within_seeds_is_told_as_a_share_of_all_variance():
    rng = np.random.default_rng(1)
    found = [
        by_sample(made_up(rng, 200, 200, of_seeds, of_samples)) for of_seeds, of_samples in ((0, 0), (1, 0), (1, 1))
    ]
    assert [one.within for one in found] == pytest.approx([1, 1 / 2, 2 / 3], abs=0.06)


def test_where_nothing_varies_or_one_seed_is_all_nothing_is_made_up():
    assert by_sample(np.full((3, 4), 0.5)).interval == (0.5, 0.5) and by_sample(np.full((3, 4), 0.5)).within is None
    one = by_sample(np.array([[0.0, 1.0]]))
    assert (one.mean, one.interval, one.by_seed) == (0.5, None, (0.5,))


METRIC = "swap_val_exact_match"


def study(folder=None, draws=1):
    """A study of two conditions and three seeds whose rows are right or wrong; in a folder, if one is given."""
    runs, results = [], []
    for label, right in (("h1d8", [0, 0, 1, 1]), ("h4d64", [0, 1, 1, 1])):
        for seed in range(3):
            for draw in range(draws):
                run_id = f"{label}-{seed}-{draw}"
                run = {
                    "label": label,
                    "role": "condition",
                    "context": "",
                    "seq_len": 64,
                    "seed": seed,
                    "run_id": run_id,
                }
                own = {
                    f"{METRIC}": right,
                    "base_val_exact_match": [1, 1, 1, int(seed > 0)],
                    "depth": [0.1, 0.4, 0.6, 0.9],
                }
                result = {"schema": 2, "run_id": run_id, "status": "finished", METRIC: sum(right) / 4, "samples": own}
                runs.append(run)
                results.append(result)
                if folder is not None:
                    (folder / run_id).mkdir(parents=True)
                    (folder / run_id / "result.json").write_text(json.dumps(result))
    conditions = {label: {"indexer": label} for label in ("h1d8", "h4d64")}
    plan = {"name": "made-up", "metric": METRIC, "baseline": "h4d64", "conditions": conditions, "runs": runs}
    if folder is not None:
        (folder / "study.json").write_text(json.dumps(plan))
    return assemble(Meta(**plan), results)


def test_conditions_are_paired_by_sample_with_their_baseline_and_with_dense_attention():
    found = {(one.label, one.reference): one.found for one in sampled(study(), METRIC)}
    assert set(found) == {("h1d8", "h4d64"), ("h1d8", "dense"), ("h4d64", "dense")}
    own = found["h1d8", "h4d64"]
    assert (own.seeds, own.samples, own.mean, own.by_seed) == (3, 4, -0.25, (-0.25, -0.25, -0.25))
    assert found["h4d64", "dense"].by_seed == (0.0, -0.25, -0.25)


def test_what_has_no_samples_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="no run here keeps swap_val_loss of each row: those on texts"):
        sampled(study(), "swap_val_loss")
    with pytest.raises(ValueError, match="metric = val_accuracy: of each row the loss and the exact match are kept"):
        sampled(study(), "val_accuracy")
    with pytest.raises(ValueError, match="draws indexers several times a seed"):
        sampled(study(draws=2), METRIC)


def test_the_command_prints_a_row_a_comparison(tmp_path, capsys):
    folder, told = tmp_path / "made-up", tmp_path / "told.json"
    study(folder)
    assert main(["samples", str(folder), "--json", str(told)]) == 0
    assert "h4d64" in capsys.readouterr().out
    assert [one["found"]["samples"] for one in json.loads(told.read_text())] == [4, 4, 4]
    assert main(["samples", str(folder), "--metric", "swap_val_loss"]) == 2
    assert capsys.readouterr().err.startswith("error: no run here keeps")


def kept_of_each_row(run, result):
    """What four rows of a text lose: a seed's mean and the row's own, by which the condition is worse or better."""
    own = (-0.3, -0.1, 0.1, 0.3) if run["label"] == "b" else (0.0, 0.0, 0.0, 0.0)
    return result | {"samples": {name: [result[name] + row for row in own] for name in ("val_loss", "dense_val_loss")}}


def test_a_study_on_text_says_what_other_rows_would_change():
    """Seeds agree on it within 0.003 nats; over other rows it might be nothing."""
    analysis = analyse(a_study({"a": 1.2, "b": 1.25}, each=kept_of_each_row))
    told = {(one.label, one.reference): one.found for one in analysis.sampled}
    assert set(told) == {("a", "dense"), ("b", "a"), ("b", "dense")}
    own, over_seeds = told["b", "a"], analysis.deciding[0].difference
    assert own.mean == pytest.approx(over_seeds.mean) and over_seeds.interval[0] > 0.045
    assert own.interval[0] < 0 < own.mean < own.interval[1] and own.within > 0.99
    verdict = json.loads(json.dumps(record(analysis)))
    jsonschema.validate(verdict, json.loads(files("dsa.analysis.output").joinpath("verdict.schema.json").read_text()))
    assert [one["found"]["samples"] for one in verdict["sampled"]] == [4, 4, 4]
    assert "Over other rows too" in page(analysis, [])


def test_where_nothing_may_be_ranked_rows_are_not_compared_either():
    blind = a_study({"a": 2.0, "b": 2.0}, controls={"dense": 2.0, "oracle": 2.0, "window": 2.0, "random": 2.0},
                    each=kept_of_each_row)  # fmt: skip
    analysis = analyse(blind)
    assert analysis.sampled == [] and "Over other rows too" not in page(analysis, [])


def test_rows_of_other_numbers_or_of_another_text_are_no_pairs():
    def fewer(run, result):
        result = kept_of_each_row(run, result)
        own = result["samples"]["val_loss"]
        return result | {"samples": result["samples"] | {"val_loss": own[:3] if run["label"] == "b" else own}}

    def elsewhere(run, result):
        return kept_of_each_row(run, result) | {"corpus": "one" if run["label"] == "b" else "other"}

    for each, told in ((fewer, {("a", "dense")}), (elsewhere, {("a", "dense"), ("b", "dense")})):
        analysis = analyse(a_study({"a": 1.2, "b": 1.25}, each=each))
        assert {(one.label, one.reference) for one in analysis.sampled} == told
