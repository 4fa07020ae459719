"""A run on a pretrained model with a query latent: indexers that read it, from the warm-up to the model's own cache."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import LATENT, SIZES, little_text, saved
from conftest import QUIET
from transformers import AutoModelForCausalLM, DeepseekV3Config

import dsa
from dsa.graph import graph_of
from dsa.study.applicable import check_indexer
from dsa.training import RunRefused

pytestmark = pytest.mark.slow

RANK = LATENT["q_lora_rank"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    place = tmp_path_factory.mktemp("latent")
    saved(place / "tiny", DeepseekV3Config(**SIZES, **LATENT), tokenizer=True)
    return [
        "model=pretrained", f"model.path={place / 'tiny'}", "data=text_model", f"data.path={little_text(place)}",
        f"cache_dir={place}", f"output_dir={place / 'outputs'}", "indexer=deepseek_v32", "indexer.heads=2",
        "indexer.dim=8", "indexer.rotary_dim=4", "indexer.latent=true", "pattern=causal", "selector.k=6", "seq_len=48",
        "dtype=fp32", "recipe=continue", "recipe.warmup.steps=3", "recipe.sparse.steps=2", *QUIET,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(settings):
    return dsa.train(dsa.compose(settings))


def test_a_run_trains_and_judges_indexers_that_read_the_latent(run):
    assert run.status == "finished" and run.val_loss != run.swap_val_loss
    model = dsa.load_run(run.folder)
    assert [router.indexer.to_query.in_features for router in model.routers] == [RANK, RANK]
    assert run.certificate["acted"] > 0 and run.certificate["causality"] == 0
    assert run.certificate["decode"] < 1e-3 and run.certificate["reselected"] == 0
    tokens = torch.randint(1, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model.generate(tokens, 8, chunk=7).equal(model.generate(tokens, 8))


def test_a_run_that_leaves_the_latent_aside_says_so(run, settings):
    aside = dsa.train(dsa.compose([*settings, "indexer.latent=false", "judge=swap"]))
    (told,) = [one for one in aside.warnings if "latent" in one]
    assert told.startswith("indexer.latent = false: this model projects its queries from a latent")
    assert not any("latent" in one for one in run.warnings)


def test_recomputed_layers_train_to_the_same_numbers(run, settings, tmp_path):
    again = dsa.train(dsa.compose([*settings, "memory=checkpoint", f"output_dir={tmp_path}"]))
    assert (again.run_id, again.val_loss, again.swap_val_loss) == (run.run_id, run.val_loss, run.swap_val_loss)


def test_indexers_are_given_back_to_transformers_and_to_no_model_without_a_latent(settings, tmp_path):
    swap = dsa.train(dsa.compose([*settings, "judge=swap"]))
    path = next(s for s in settings if s.startswith("model.path=")).removeprefix("model.path=")
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(path), swap.folder)
    tokens = torch.randint(1, 60, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sparse = model(input_ids=tokens).logits
        assert not dsa.detach(model)(input_ids=tokens).logits.equal(sparse)
    other = saved(tmp_path / "other", DeepseekV3Config(**SIZES, **LATENT | {"q_lora_rank": None}))
    with pytest.raises(ValueError, match=r"^indexer\.latent = true: the model projects"):
        dsa.attach(AutoModelForCausalLM.from_pretrained(other), swap.folder)


def test_a_model_without_a_latent_is_refused_before_anything_is_trained(settings, tmp_path):
    spec = dsa.compose(["indexer=h2d8", "indexer.latent=true", f"output_dir={tmp_path}", *QUIET])
    said = r"indexer\.latent = true: the model projects its queries from the hidden states, .*give indexer\.latent=fal"
    with pytest.raises(ValueError, match=f"^{said}"):
        dsa.build.build_model(spec, 64)
    with pytest.raises(ValueError, match=f"^condition x, indexer=h2d8~: {said}"):
        check_indexer(spec, "x")
    with pytest.raises(RunRefused, match=said):
        dsa.train(spec)
    with pytest.raises(RunRefused, match=r"^indexer\.latent = 3: give true or false"):
        dsa.train(dsa.compose(["indexer=h2d8", "indexer.latent=3", f"output_dir={tmp_path}", *QUIET]))


@pytest.mark.parametrize("recipe", ["continue", "scratch"])
def test_where_queries_come_from_shapes_the_hash_and_hidden_states_go_unsaid(recipe):
    def graph(*settings):
        return graph_of(dsa.compose(["indexer=h2d8", f"recipe={recipe}", *settings]), "a corpus")

    named = (graph().indexers or graph().joint).identity["indexer"]
    assert "latent" not in named and named["heads"] == 2
    assert graph("indexer.latent=true").hash != graph().hash == graph("indexer.latent=false").hash
