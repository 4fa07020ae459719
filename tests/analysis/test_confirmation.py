"""What joint training came to, beside a verdict on the untouched backbone: of finalists on seeds of their own."""

import json
from dataclasses import replace

import pytest
from jsonschema import validate
from made_up import CONTROLS, meta_of, result_of
from test_report import SCHEMA

from dsa.analysis.inputs.prepared import assemble, prepare
from dsa.analysis.judgement.analysis import analyse
from dsa.analysis.output.files import record
from dsa.analysis.output.report.grid import grids
from paper.source import Study, save, together
from paper.times import Times

SWAPPED = {"a": 1.10, "b": 1.12, "c": 1.60, "d": 1.70}  # backbone untouched
TRAINED = {"a": 1.04, "b": 1.24}  # the finalists, after joint training


def study(trained=TRAINED, seeds=10, missing=lambda run: False, shift=0):
    """Four conditions judged on seeds 0 to 9; those trained jointly, with the controls, on 10 to 19."""
    chosen = {label: {"indexer": label} for label in SWAPPED}
    meta = meta_of(chosen, seeds=seeds, metric="swap_val_loss", hypothesis={"claim": "some_condition_differs"})
    selection = [run | {"judge": "swap", "seed": run["seed"] + shift} for run in meta.runs]
    later = [
        run | {"judge": "val", "seed": run["seed"] + seeds + shift, "run_id": f"{run['run_id']}-joint"}
        for run in meta.runs
        if trained and run["label"] in {**trained, **CONTROLS}
    ]
    meta = replace(meta, runs=[*selection, *later])
    results = []
    for number, run in enumerate(meta.runs):
        true = {**CONTROLS, **(SWAPPED if run["judge"] == "swap" else trained)}[run["label"]]
        noise = 0.001 * (number % 7)
        result = result_of(run, true + noise, 1.0, 1.5, swap_val_loss=true + noise, base_val_loss=1.0)
        results.append(None if missing(run) else result)
    return assemble(meta, results)


@pytest.mark.slow
def test_finalists_are_compared_after_joint_training_on_their_own_seeds():
    done = analyse(study())
    found = done.confirmation
    assert (found.metric, found.seeds) == ("val_loss", list(range(10, 20)))
    (only,) = [c for c in found.comparisons if c.metric == "val_loss"]
    assert (only.label, only.reference, only.word, only.comparisons) == ("b", "a", "worse", 1)
    assert only.difference.mean == pytest.approx(0.2, abs=0.01)
    assert {c.label for c in found.to_dense} == {"a", "b"}
    means = {q.label: q.mean for q in found.qualities if q.metric == "val_loss"}
    assert means["a"] == pytest.approx(1.04, abs=0.01) and {"dense", "random"} < means.keys()


@pytest.mark.slow
def test_the_verdict_rests_on_the_selection_alone():
    done, without = analyse(study()), analyse(study(trained={}))
    assert without.confirmation is None
    assert done.sentence == without.sentence and done.comparisons == without.comparisons
    assert {c.difference.seeds for c in done.comparisons} == {10}


@pytest.mark.slow
def test_the_report_and_the_record_show_it():
    done = analyse(study())
    (grid,) = [grid for grid in grids(done) if grid.name == "confirmation"]
    assert len(grid.rows) == 3 and "Seeds 10 to 19." in grid.note
    validate(json.loads(json.dumps(record(done))), SCHEMA)
    assert [c["word"] for c in record(done)["confirmation"]["comparisons"]] == ["worse"]
    assert "confirmation" not in {grid.name for grid in grids(analyse(study(trained={})))}


@pytest.mark.slow
def test_what_cannot_be_ranked_or_is_too_good_after_joint_training_is_said():
    chance, leaking = (analyse(study({"a": 1.04, "b": loss})).confirmation for loss in (9.0, 0.5))
    (only,) = [c for c in chance.comparisons if c.metric == "val_loss"]
    assert only.word == "cannot discriminate" and "uninformative loss" in {guard.name for guard in chance.guards}
    assert "better than dense" in {guard.name for guard in leaking.guards}


@pytest.mark.slow
def test_finalists_without_a_result_are_missed():
    done = analyse(study(missing=lambda run: run["judge"] == "val" and run["label"] == "b"))
    assert {gap.label for gap in done.prepared.joint.gaps} == {"b"} and done.prepared.gaps == ()
    assert "missing runs" in {guard.name for guard in done.confirmation.guards}
    nothing = analyse(study(missing=lambda run: run["judge"] == "val")).confirmation
    assert nothing.seeds == [] and nothing.comparisons == []
    assert "missing runs" in {guard.name for guard in nothing.guards}


@pytest.mark.slow
def test_compact_results_keep_it(tmp_path):
    done = analyse(study())
    save(Study(done, Times(done.prepared), ()), tmp_path)
    again = analyse(prepare(tmp_path))
    assert again.confirmation == done.confirmation and again.sentence == done.sentence
    alone = analyse(study(trained={}))
    save(Study(alone, Times(alone.prepared), ()), tmp_path / "alone")
    assert prepare(tmp_path / "alone").joint is None


def test_parts_of_a_study_keep_the_joint_runs_of_each():
    first, then = (study(shift=shift) for shift in (0, 10))  # then: selected on first's joint seeds
    both = together(first, then)
    seeds, later = (sorted(set(part.runs["seed"])) for part in (both, both.joint))
    assert seeds == list(range(20)) and later == list(range(10, 30))
