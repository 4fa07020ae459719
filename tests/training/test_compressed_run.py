"""Runs of a model that attends to entries: every stage, the controls, and an interruption."""

import pytest
from conftest import fitting

from dsa import compose, load_run, train
from dsa.ops.cost import attention_flops, entry_pairs
from training.whole_runs import RUN, interrupted_in_both_stages, same, weights

CSA = [*RUN, "model.kv=csa", "model.kv_window=8", *fitting("indexer", "deepseek_v4_csa"), "indexer.heads=4",
       "indexer.dim=16", "indexer.rotary_dim=8", "selector.k=16"]  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture
def run(outputs):
    return train(compose([*CSA, f"output_dir={outputs}"]))


def test_a_run_trains_and_judges_entries_with_its_controls(run, outputs):
    assert run.status == "finished" and run.val_loss != run.swap_val_loss
    assert None not in (run.base_val_loss, run.dense_val_loss, run.swap_window_loss)
    assert run.flops["dense_attention"] == 2 * attention_flops(2, 16, entry_pairs(64, 4, 8))
    assert 0 < run.density < 1 and not run.speed_is_real
    first, second = (load_run(run.folder).get_parameter(f"blocks.{n}.attention.sink") for n in (0, 1))
    assert first.any() and second.any(), "sinks begin at 0 and learn"
    losses = {
        name: train(compose([*CSA, "judge=swap", f"selector={name}", "selector.k=16", f"output_dir={outputs}"]))
        for name in ("oracle", "random", "window")
    }
    assert {one.artifacts["base"] for one in losses.values()} == {run.artifacts["base"]}
    assert losses["window"].swap_val_loss == pytest.approx(run.swap_window_loss)
    assert losses["oracle"].selection["mean"]["mass"] > losses["random"].selection["mean"]["mass"]


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(run, tmp_path, monkeypatch):
    parts = interrupted_in_both_stages([*CSA, f"output_dir={tmp_path / 'parts'}"], monkeypatch)
    assert same(weights(parts), weights(run)) and parts.val_loss == run.val_loss
