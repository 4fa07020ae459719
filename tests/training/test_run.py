"""Whole runs: deterministic, sharing what they can, honest about what they did."""

import json
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose, load_run, load_study, train
from dsa.artifacts.store import PLACES
from dsa.build import build_data
from dsa.graph import graph_of
from training.whole_runs import RUN, STEPS, artifact, same, weights

pytestmark = pytest.mark.slow


def test_the_same_configuration_and_seed_give_the_same_weights(uninterrupted, outputs):
    again = train(compose([*RUN, f"output_dir={outputs}"]))
    assert same(weights(uninterrupted), weights(again))
    assert again.val_loss == uninterrupted.val_loss
    other = train(compose([*RUN, "seed=1", f"output_dir={outputs}"]))
    assert not same(weights(uninterrupted), weights(other))


def test_the_loaded_model_gives_the_logits_of_the_end_of_training(uninterrupted):
    result = uninterrupted
    model = load_run(result.folder)
    data = build_data(compose(RUN))
    losses = []
    with torch.no_grad():
        for batch in data.eval_loader():
            logits = model(batch.tokens).float().mT
            losses.append(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none").sum(1))
            asked = (batch.targets != -100).sum(1)
    loss = torch.cat(losses).sum() / (len(losses) * asked.sum())
    assert abs(float(loss) - result.val_loss) < 1e-5
    saved = torch.load(artifact(result, "joint") / "weights.ckpt", weights_only=True, map_location="cpu")
    assert same(saved, model.state_dict())


def test_the_result_holds_every_promised_field(uninterrupted):
    values = json.loads((Path(uninterrupted.folder) / "result.json").read_text())
    promised = """run_id schema status study artifacts indexer_seed condition model data recipe seq_len seed val_loss
        val_perplexity val_accuracy recall_slice_loss chance_loss unigram_loss dense_val_loss delta_loss base_val_loss
        swap_val_loss params density mean_k selection flops time memory stability speed_is_real warnings""".split()
    assert set(promised) <= set(values)
    assert set(values["condition"]) == {"indexer", "pattern", "selector", "precision"}
    assert {"total", "indexer", "indexer_share"} <= set(values["params"])
    assert {"mass", "oracle_mass", "recall", "kl"} <= set(values["selection"]["mean"])
    assert len(values["selection"]["layers"]) == 2
    assert {"dense_attention", "indexer", "select", "sparse_attention"} <= set(values["flops"])
    assert {"step_ms", "tokens_per_s", "infer_ms", "indexer_ms", "select_ms", "attend_ms", "contended"} <= set(
        values["time"]
    )
    assert {"peak_mb", "indexer_mb"} <= set(values["memory"])
    assert {"loss_std", "spikes", "grad_norm_p99"} <= set(values["stability"])
    assert 0 < values["selection"]["mean"]["mass"] <= values["selection"]["mean"]["oracle_mass"] + 1e-6 <= 1.001
    assert values["delta_loss"] == values["val_loss"] - values["dense_val_loss"]
    assert values["density"] == pytest.approx((8 * 64 - 28) / (64 * 65 / 2))
    assert values["artifacts"]["base"].startswith("dense-")
    frame = load_study(Path(uninterrupted.folder).parent)
    assert frame.loc[0, "selection.mean.mass"] == values["selection"]["mean"]["mass"]


def test_a_finished_run_is_not_repeated_unless_asked(uninterrupted):
    result = Path(uninterrupted.folder) / "result.json"
    before = result.stat().st_mtime_ns
    overrides = [*RUN, f"output_dir={Path(uninterrupted.folder).parents[1]}"]
    train(compose(overrides))
    assert result.stat().st_mtime_ns == before
    again = train(compose([*overrides, "rerun=true"]))
    assert result.stat().st_mtime_ns > before
    assert again.val_loss == uninterrupted.val_loss


def test_conditions_share_one_dense_base_and_one_control(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    other = train(compose([*RUN, "indexer=h1d8", "precision=int8", f"output_dir={folder}"]))
    for kind in ("base", "control"):
        assert other.artifacts[kind] == uninterrupted.artifacts[kind]
    assert len(list((folder / "bases").iterdir())) == 1
    assert other.run_id != uninterrupted.run_id


def test_what_comes_after_training_reuses_what_was_trained(uninterrupted, caplog):
    folder = Path(uninterrupted.folder).parents[1]
    trained = {kind: set((folder / PLACES[kind]).iterdir()) for kind in ("base", "indexers", "joint")}
    with caplog.at_level("INFO", logger="dsa"):
        other = train(compose([*RUN, "pattern=strided", "recipe.sparse.steps=0", f"output_dir={folder}"]))
    assert "not trained again" in caplog.text and uninterrupted.artifacts["indexers"] in caplog.text
    assert {kind: set((folder / PLACES[kind]).iterdir()) for kind in trained} == trained
    assert other.artifacts["indexers"] == uninterrupted.artifacts["indexers"]
    assert other.swap_val_loss == other.val_loss != uninterrupted.swap_val_loss


def test_a_format_is_applied_after_training_unless_it_takes_part(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    after = train(compose([*RUN, "precision=int4", f"output_dir={folder}"]))
    assert after.artifacts["joint"] == uninterrupted.artifacts["joint"]
    assert after.val_loss != uninterrupted.val_loss
    during = train(compose([*RUN, "precision=int4", "precision.in_training=true", f"output_dir={folder}"]))
    assert during.artifacts["base"] == after.artifacts["base"]
    assert during.artifacts["indexers"] != after.artifacts["indexers"]
    assert during.artifacts["joint"] != after.artifacts["joint"]


def test_another_indexer_seed_keeps_the_base_and_nothing_of_the_indexers(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    other = train(compose([*RUN, "indexer_seed=1", "recipe.sparse.steps=0", f"output_dir={folder}"]))
    assert other.artifacts["base"] == uninterrupted.artifacts["base"]
    assert other.artifacts["indexers"] != uninterrupted.artifacts["indexers"]
    assert other.swap_val_loss != uninterrupted.swap_val_loss


def test_controls_have_no_indexer_and_dense_is_its_own_ceiling(uninterrupted):
    folder = Path(uninterrupted.folder).parents[1]
    window = train(compose([*RUN, "selector=window", "selector.k=8", f"output_dir={folder}"]))
    assert window.params["indexer"] == 0
    assert window.swap_val_loss == pytest.approx(window.swap_window_loss)
    dense = train(compose([*RUN[:-1], "selector=dense", f"output_dir={folder}"]))
    assert dense.delta_loss == 0
    assert dense.artifacts["joint"] == uninterrupted.artifacts["control"]


def test_names_and_devices_do_not_change_the_hash_and_numbers_do():
    def hashed(*overrides):
        spec = compose([*RUN, *overrides])
        return graph_of(spec, build_data(spec).fingerprint).hash

    plain = hashed()
    for setting in (
        "logger=wandb",
        "callbacks=default",
        "trainer=cpu",
        "output_dir=elsewhere",
        "name=other",
        "ops=blocked",
        "memory=checkpoint",
        "memory=offload",
    ):
        assert hashed(setting) == plain, setting
    assert len({hashed(), hashed("data.seed=7"), hashed("data.seq_len=48")}) == 3
    assert hashed("pattern=local_global") == hashed("pattern=local_global_32_64")
    changes = ("seed=1", "indexer.dim=8", "data.batch_size=8", "recipe.sparse.lr=1e-4", "dtype=bf16", "seq_len=32")
    assert len({hashed(change) for change in changes} | {plain}) == len(changes) + 1


@pytest.mark.parametrize("selector", ["topk", "window"])
def test_a_recipe_that_ends_after_the_warm_up_judges_the_untouched_backbone(selector, outputs):
    overrides = [*RUN, f"selector={selector}", "recipe.sparse.steps=0", f"output_dir={outputs}"]
    result = train(compose(overrides))
    assert result.swap_val_loss == result.val_loss
    assert result.dense_val_loss == result.base_val_loss
    assert load_run(result.folder).vocab_size == 192


def test_noise_ends_with_the_warning_that_the_loss_says_nothing(outputs):
    small = [o for o in SMALL if not o.startswith("data=")]
    result = train(compose([*small, *QUIET, *STEPS, "data=noise", f"output_dir={outputs}"]))
    assert any("carries no information" in warning for warning in result.warnings)


def test_a_budget_that_reaches_the_length_runs_and_says_before_and_after_that_it_is_dense(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "selector.k=64", f"output_dir={outputs}"]))
    log = (Path(result.folder) / "run.log").read_text()
    early = "window and budget reach the length: 64 keys of 64, so attention is dense."
    assert log.count(early) == 1 and log.index(early) < log.index("validation loss")
    assert result.density == 1.0
    assert not result.speed_is_real
    assert any("this attention is dense" in warning for warning in result.warnings)


def test_scratch_has_no_base_and_its_control_is_dense_from_scratch(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "recipe=scratch", f"output_dir={outputs}"]))
    assert result.artifacts["base"] is None
    assert result.swap_val_loss is None
    assert result.dense_val_loss is not None


def test_without_a_control_the_difference_is_null_and_said(outputs):
    result = train(compose([*SMALL, *QUIET, "steps=6", "dense_control=false", f"output_dir={outputs}"]))
    assert result.delta_loss is None
    assert any("no dense control was found" in warning for warning in result.warnings)


@pytest.mark.parametrize(("lr", "forgets"), [(0.3, True), (1e-4, False)])
def test_joint_training_that_undoes_what_dense_attention_knew_is_said(outputs, lr, forgets):
    result = train(compose([*SMALL, *QUIET, "steps=12", f"recipe.sparse.lr={lr}", f"output_dir={outputs}"]))
    assert (result.dense_val_loss > result.base_val_loss + 0.01) is forgets
    assert any("made dense attention itself worse" in warning for warning in result.warnings) is forgets
