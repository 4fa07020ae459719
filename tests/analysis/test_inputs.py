"""Which runs stand for which number, and what a seed counts for."""

import json
from dataclasses import asdict

import pytest
from made_up import meta_of, result_of

from dsa.analysis.inputs.meta import read_meta
from dsa.analysis.inputs.results import tidy


def frame_of(meta, losses):
    frame, _ = tidy(meta, [result_of(run, loss, 1.0, 1.5) for run, loss in zip(meta.runs, losses, strict=True)])
    return frame


@pytest.mark.parametrize(("metric", "judge", "wanted"), [("swap_val_loss", "swap", 1.0), ("val_loss", "val", 2.0)])
def test_selection_and_confirmation_never_mix(metric, judge, wanted):
    meta = meta_of({"h1d8": {"indexer": "h1d8"}}, (128,), 2, metric=metric)
    meta.runs[:] = [run | {"judge": name} for run in meta.runs for name in ("swap", "val")]
    frame = frame_of(meta, [1.0 if run["judge"] == "swap" else 2.0 for run in meta.runs])
    assert len(frame) == len(meta.runs) / 2
    assert set(frame["val_loss"]) == {wanted}


def test_several_draws_of_the_indexers_on_one_base_are_one_seed():
    meta = meta_of({"h1d8": {"indexer": "h1d8"}}, (128,), 2)
    meta.runs[:] = [run | {"run_id": f"{n}-{draw}"} for n, run in enumerate(meta.runs) for draw in range(3)]
    frame = frame_of(meta, [float(run["run_id"][-1]) for run in meta.runs])
    assert len(frame) == len(meta.runs) / 3
    assert set(frame["val_loss"]) == {1.0}
    assert not frame.duplicated(["label", "seq_len", "seed"]).any()


def test_a_plan_without_contexts_is_refused_in_a_sentence(tmp_path):
    plan = asdict(meta_of({"h1d8": {"indexer": "h1d8"}}, (128,), 1))
    (tmp_path / "study.json").write_text(json.dumps(plan))
    assert read_meta(tmp_path).context("h1d8") == ""
    for run in plan["runs"]:
        del run["context"]
    (tmp_path / "study.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match="its runs lack context, older code planned it; plan it again"):
        read_meta(tmp_path)


def test_what_layers_share_is_compared_and_no_context():
    meta = meta_of({"one": {"index_every": 1}, "two": {"index_every": 2, "model.layers": 4}})
    assert [meta.options(label) for label in ("one", "two")] == [{"index_every": 1}, {"index_every": 2}]
