"""A study's table says what each run is compared as, so that no mean mixes conditions and controls."""

import json

import pytest

from dsa import load_study

OPTIONS = {"indexer": "h1d8", "pattern": "causal", "selector": "topk", "precision": "fp32"}
UNRANKED = {"indexer": "none", "precision": "none"}
RUNS = [  # folder, label, kind, condition, loss
    ("a", "h1d8", "condition", OPTIONS, 1.0),
    ("b", "h2d8", "condition", OPTIONS | {"indexer": "h2d8"}, 2.0),
    ("c", "dense", "dense", OPTIONS | UNRANKED | {"selector": "dense"}, 0.5),
    ("d", "random", "random", OPTIONS | UNRANKED | {"selector": "random~"}, 9.0),
]


@pytest.fixture
def folder(tmp_path):
    for name, _, _, condition, loss in RUNS:
        (tmp_path / name).mkdir()
        result = {"run_id": name, "schema": 2, "condition": condition, "val_loss": loss}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    return tmp_path


def plan(folder, *more):
    runs = [(name, label, kind) for name, label, kind, _, _ in RUNS]
    listed = [
        {"run_id": name, "label": label, "kind": kind, "role": "condition" if kind == "condition" else "control"}
        for name, label, kind in (*more, *runs)
    ]
    (folder / "study.json").write_text(json.dumps({"baseline": "h1d8", "runs": listed}))


def test_every_run_has_the_label_and_kind_that_its_study_gave_it(folder):
    plan(folder, (None, "h4d8", "condition"))
    frame = load_study(folder).set_index("run_id")
    assert frame["label"].to_dict() == {name: label for name, label, *_ in RUNS}
    assert frame["kind"].to_dict() == {name: kind for name, _, kind, *_ in RUNS}
    assert frame["baseline"].to_dict() == {"a": True, "b": False, "c": False, "d": False}


def test_grouped_by_indexer_the_conditions_are_apart_from_the_controls(folder):
    plan(folder)
    frame = load_study(folder)
    means = frame[frame["kind"] == "condition"].groupby("condition.indexer")["val_loss"].mean()
    assert means.to_dict() == {"h1d8": 1.0, "h2d8": 2.0}


def test_a_run_under_several_labels_is_one_row_and_a_condition_before_a_control(folder):
    plan(folder, ("a", "window", "window"), ("a", "h1d8", "condition"))
    frame = load_study(folder)
    assert len(frame) == len(RUNS)
    assert frame.set_index("run_id").loc["a", ["label", "kind"]].tolist() == ["h1d8", "condition"]


def test_single_runs_are_labelled_by_their_options_and_controls_by_their_selector(folder):
    frame = load_study(folder).set_index("run_id")
    assert frame["kind"].to_dict() == {"a": "condition", "b": "condition", "c": "dense", "d": "random"}
    assert frame.loc["b", "label"] == "h2d8-causal-topk-fp32"
    assert frame.loc["c", "label"] == "causal-dense"
    assert not frame["baseline"].any()


def test_a_run_that_was_refused_before_it_had_options_is_a_row_too(folder):
    (folder / "e").mkdir()
    (folder / "e" / "result.json").write_text(
        json.dumps({"run_id": "refused-1", "schema": 2, "condition": {}, "status": "failed"})
    )
    frame = load_study(folder).set_index("run_id")
    assert frame.loc["refused-1", ["label", "kind"]].tolist() == ["", "condition"]
