"""Each number of a result is that of the judgement that it names."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL
from torch import nn

from dsa import build_model, compose
from dsa.artifacts.results import RunResult
from dsa.backbones import Site
from dsa.ops import native
from dsa.training.assemble import Findings, compare, is_speed, measure
from dsa.training.caveats import warnings_of

WHERE = {"final": "val", "dense": "base_val", "swap": "swap_val", "window": "swap_window",
         "sinks": "swap_sink_window", "control": "dense_val"}  # fmt: skip


def measured(number):
    """An evaluation of which every value tells where it came from."""
    names = ("loss", "perplexity", "accuracy", "exact_match", "exact_match_depth_1", "exact_match_depth_5")
    of_rows = {"loss": [number, number + 1.0], "exact_match": [0.0, 1.0], "depth": [0.25, 0.5]}
    return {"val": {name: number + i / 10 for i, name in enumerate(names)}, "samples": of_rows}


@pytest.mark.parametrize("trained", [True, False])
def test_what_a_run_is_compared_with_stands_under_its_own_name(trained):
    found = Findings(**{name: measured(i) for i, name in enumerate(WHERE)}, base_training={}, rows=[], control_rows=[])
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, val_loss=found.final["val"]["loss"])
    compare(result, found, dense=False, trained_sparse=trained)
    for name, prefix in WHERE.items():
        if name != "final":
            own = getattr(found, "dense" if name == "control" and not trained else name)["val"]
            assert getattr(result, f"{prefix}_loss") == own["loss"]
            assert getattr(result, f"{prefix}_accuracy") == own["accuracy"]
            assert getattr(result, f"{prefix}_exact_match") == own["exact_match"]
            depths = {"1": own["exact_match_depth_1"], "5": own["exact_match_depth_5"]}
            assert result.exact_match_by_depth[prefix] == depths
            of_rows = getattr(found, "dense" if name == "control" and not trained else name)["samples"]
            assert result.samples[f"{prefix}_loss"] == of_rows["loss"]
            assert result.samples[f"{prefix}_exact_match"] == [0.0, 1.0] and result.samples["depth"] == [0.25, 0.5]
    assert result.delta_loss == result.val_loss - result.dense_val_loss


def test_a_dense_run_is_its_own_ceiling_and_tasks_without_exact_match_have_none():
    final = {"val": {"loss": 1.0, "perplexity": 2.0, "accuracy": 0.5}}
    found = Findings(final, None, None, None, None, None, {}, [], [])
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, val_loss=1.0)
    compare(result, found, dense=True, trained_sparse=False)
    assert (result.dense_val_loss, result.dense_val_perplexity, result.dense_val_accuracy) == (1.0, 2.0, 0.5)
    assert result.delta_loss == 0.0
    assert result.dense_val_exact_match is None and result.exact_match_by_depth == {}


@pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
@pytest.mark.parametrize(("cap", "real"), [(None, True), (30.0, False)])
def test_times_are_no_speed_where_one_layer_is_computed_under_a_mask(cap, real):
    spec, result = compose([]), RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, density=0.5)
    model = SimpleNamespace(sites=(Site(0, 32, 4, 4, 8), Site(1, 32, 4, 4, 8, cap=cap)), router=lambda site: None)
    assert is_speed(spec, result, model, torch.device("cpu")) is real


@pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
@pytest.mark.parametrize(
    ("settings", "real"),
    [
        (["indexer=h1d8"], True),
        (["indexer=hisa", "indexer.block=4"], False),
        (["indexer=moba", "indexer.unit=4"], False),
        (["indexer=h1d8", "objective=asked_kl"], False),
        (["indexer=h1d8", "objective=gradient_kl"], False),
        (["indexer=h1d8", "precision=bf16", "precision.in_training=true"], False),
    ],
)
def test_times_are_no_speed_where_what_ranks_or_teaches_is_computed_under_a_mask(settings, real):
    spec = compose([*SMALL, *settings])
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, density=0.5)
    assert is_speed(spec, result, build_model(spec, 64), torch.device("cpu")) is real


@pytest.mark.parametrize("selector", ["topk", "oracle"])
def test_the_memory_of_a_run_in_which_the_backbone_learns_nothing_holds_no_gradient_of_it(selector, monkeypatch):
    spec = compose([*SMALL, f"selector={selector}"])
    spec = replace(spec, recipe=replace(spec.recipe, dense_steps=0, sparse_steps=0))
    model, result, saw = build_model(spec, 64), RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0), []
    monkeypatch.setattr(nn.Module, "zero_grad", lambda *_, **__: saw.append({
        name for name, weight in model.named_parameters() if weight.grad is not None}))  # fmt: skip
    rows = [SimpleNamespace(tokens=torch.randint(64, (2, 32)))]
    measure(spec, SimpleNamespace(eval_loader=lambda: rows), model, torch.device("cpu"), result)
    assert saw and all(name.startswith("routers.") for names in saw for name in names)
    assert bool(saw[0]) == (selector == "topk") and result.memory["peak_mb"] > 0
    assert all(weight.requires_grad for weight in model.parameters()), "as they were"


@pytest.mark.parametrize("given", [True, False])
def test_a_pretrained_model_that_makes_nothing_of_its_text_is_asked_for_its_tokenizer(given):
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, val_loss=4.0, unigram_loss=3.0)
    spec = SimpleNamespace(given=given, sparse=False, data=SimpleNamespace(option="text"))
    (told,) = warnings_of(spec, result, nn.Module())
    assert "carries no information" in told
    assert ("Is the text read by this model's own tokenizer, as with data=text_model or stdlib_model?" in told) is given


@pytest.mark.parametrize(("dense", "lost"), [(2.0, True), (3.5, False)])
def test_a_selection_that_loses_what_dense_attention_knows_is_told_from_a_loss_that_says_nothing(dense, lost):
    result = RunResult(
        "r", "finished", "s", {}, "m", "d", "r", 64, 0, val_loss=4.0, unigram_loss=3.0, base_val_loss=dense
    )
    spec = SimpleNamespace(given=True, sparse=False, data=SimpleNamespace(option="text"))
    (told,) = warnings_of(spec, result, nn.Module())
    assert ("this selection lost what dense attention knows, whose loss is 2.0000" in told) is lost
    assert ("carries no information" in told) is not lost
