"""Indexers that a run trained, given back to a model of transformers: it attends, generates and is left as they say."""

# ruff: noqa: F811  (fixtures of another file are given by their names)

import copy
import json
import pickle
import shutil
import warnings

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, made, saved
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import dsa
from dsa.backbones.pretrained import Adopted
from dsa.backbones.pretrained.hook import LAYER
from dsa.indices import dump_indices
from training.test_pretrained_run import LENGTH, folder, run, settings  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow


def test_an_attached_model_attends_as_the_run_did_and_a_detached_one_as_before(run, folder, tmp_path):
    tokens = torch.randint(1, 60, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    expected = dsa.load_run(run.folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        dense = model(input_ids=tokens, use_cache=False).logits
        assert dsa.attach(model, run.folder) is model
        sparse = model(input_ids=tokens, use_cache=False).logits
        assert sparse.equal(expected(tokens)) and not sparse.equal(dense)
        place = dsa.save_indexers(run, tmp_path / "given")
        again = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), place)
        assert again(input_ids=tokens, use_cache=False).logits.equal(sparse)
        dsa.attach(model, place)  # twice: the first one is taken away
        assert model(input_ids=tokens, use_cache=False).logits.equal(sparse)
        kept = dsa.attached(model)
        torch.testing.assert_close(dsa.detach(model)(input_ids=tokens).logits, dense)
        with pytest.raises(ValueError, match="no layer of this model selects; its attention is dense"):
            dump_indices(kept, tokens[:1], tmp_path / "none.npy")
    told = json.loads((place / "indexers.json").read_text())
    assert told["fits"]["files"] and told["config"]["indexer"]["heads"] == 2
    assert {name.split(".")[0] for name in load_file(place / "indexers.safetensors")} == {"0", "1"}
    with pytest.raises(FileExistsError, match="is there already"):
        dsa.save_indexers(run, place)


@pytest.mark.usefixtures("untyped")
def test_what_is_no_run_has_no_indexers_to_be_saved(tmp_path):
    with pytest.raises(ValueError, match=r"^save_indexers: give a finished run or its folder, not Linear\.$"):
        dsa.save_indexers(torch.nn.Linear(1, 1), tmp_path / "given")


def test_a_run_is_of_the_models_files_as_they_were_then_and_its_indexers_fit_a_tuned_one_with_a_warning(
    settings, folder, tmp_path, monkeypatch
):
    own = tmp_path / "tuned"
    shutil.copytree(folder, own)
    monkeypatch.chdir(tmp_path)
    here = [*settings, f"output_dir={tmp_path / 'outputs'}", "model.path=tuned", "recipe.warmup.steps=1"]
    first = dsa.train(dsa.compose(here))
    tokens = torch.randint(1, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sparse = dsa.attach(AutoModelForCausalLM.from_pretrained(own), first.folder)(tokens, use_cache=False).logits
    tuned = AutoModelForCausalLM.from_pretrained(own)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight.mul_(1.1)
    tuned.save_pretrained(own)
    second = dsa.train(dsa.compose(here))
    assert second.folder != first.folder and second.base_val_loss != first.base_val_loss
    monkeypatch.chdir("/")  # from where tuned is no folder
    with pytest.warns(UserWarning, match="these indexers were trained on another model"):
        dsa.attach(AutoModelForCausalLM.from_pretrained(own), first.folder)
    given = dsa.save_indexers(first, tmp_path / "given")
    with torch.no_grad():
        again = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), given)(tokens, use_cache=False).logits
    assert again.equal(sparse)


def test_a_copy_of_an_attached_model_attends_as_it_does(run, folder):
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    tokens = torch.randint(1, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(tokens).logits  # with a cache, which a copy does not share
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert copied(tokens).logits.equal(wanted) and copied.dsa_routers is not model.dsa_routers


def test_a_detached_or_refused_model_computes_by_the_implementation_that_it_had(run, folder):
    for own in ("sdpa", "eager"):
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=own)
        assert dsa.attach(model, run.folder).config._attn_implementation not in ("sdpa", "eager")
        dsa.attach(model, run.folder)
        assert dsa.detach(model).config._attn_implementation == own
    for wrong in ({"leave_dense": [0, 1]}, {"leave_dense": [7]}):
        with pytest.raises(ValueError, match="model"):
            Adopted(model, **wrong)
        assert model.config._attn_implementation == own
    assert not any(hasattr(module, LAYER) or module._forward_pre_hooks for module in model.modules())


def test_a_model_in_bfloat16_is_attached_generates_and_is_close_to_the_one_in_float32(run, folder, tmp_path):
    tokens = torch.randint(1, 60, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        dense = model(input_ids=tokens, use_cache=False).logits
        sparse = dsa.attach(model, run.folder)(input_ids=tokens, use_cache=False).logits
        assert sparse.dtype == torch.bfloat16 and not sparse.equal(dense)
        whole = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)(tokens, use_cache=False).logits
        first = model.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
        assert first.shape == (2, LENGTH + 6)
        found = dsa.dump_indices(dsa.attached(model), tokens[:1], tmp_path / "x.npy")
    assert found.shape == (LENGTH, 2, 6)
    assert (sparse.float() - whole).abs().mean() < 0.05 * whole.std(), "rounding, and the choices that it changes"
    assert {weight.dtype for weight in dsa.attached(model).routers.parameters()} == {torch.float32}
    with torch.no_grad():
        cast = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder).to(torch.bfloat16)
        late = cast(input_ids=tokens, use_cache=False).logits
    assert (late.float() - whole).abs().mean() < 0.05 * whole.std(), "cast after it was attached"
    assert {weight.dtype for weight in dsa.attached(cast).routers.parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def shared(settings):
    """A run in which both layers share an indexer."""
    return dsa.train(dsa.compose([*settings, "index_every=2"]))


def test_layers_share_an_indexer_also_when_they_are_given_back_to_transformers(shared, folder, tmp_path):
    run = shared
    assert len(dsa.load_run(run.folder).routers) == 1
    tokens = torch.randint(1, 60, (2, LENGTH), generator=torch.Generator().manual_seed(0))
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), dsa.save_indexers(run, tmp_path / "given"))
    with torch.no_grad():
        assert model(input_ids=tokens, use_cache=False).logits.equal(dsa.load_run(run.folder)(tokens))
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 3
    with pytest.raises(ValueError, match=r"1 indexers; the attention layers of this model take 2"):
        dsa.attach(made(config), run.folder)


def test_indexers_of_another_model_are_refused(run, folder, tmp_path):
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 3
    with pytest.raises(ValueError, match=r"2 indexers; the attention layers of this model take 3"):
        dsa.attach(made(config), run.folder)
    files = saved(tmp_path / "three", config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is not told to judge what is refused
        with pytest.raises(ValueError, match=r"2 indexers; the attention layers of this model take 3"):
            dsa.attach(model := AutoModelForCausalLM.from_pretrained(files), run.folder)
    assert model.config._attn_implementation == "sdpa" and not any(hasattr(part, LAYER) for part in model.modules())
    wide = CONFIGS["llama"]()
    wide.hidden_size = 64
    with pytest.raises(ValueError, match=r"do not fit the model: .* is \(16, 32\) where the model has \(16, 64\)"):
        dsa.attach(made(wide), run.folder)
    with pytest.raises(FileNotFoundError, match="no result; give the folder of a finished run"):
        dsa.attach(made(CONFIGS["llama"]()), tmp_path)
    with pytest.raises(FileNotFoundError, match="x: there is no such folder; give the folder of a finished run"):
        dsa.attach(made(CONFIGS["llama"]()), tmp_path / "x")


def test_indexers_of_another_model_of_the_same_shape_are_told(run, folder, tmp_path):
    other = tmp_path / "other"
    changed = AutoModelForCausalLM.from_pretrained(folder)
    changed.get_input_embeddings().weight.data += 0.1
    changed.save_pretrained(other)
    with pytest.warns(UserWarning, match="these indexers were trained on another model"):
        dsa.attach(AutoModelForCausalLM.from_pretrained(other), run.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    with pytest.raises(ValueError, match="give a model of transformers"):
        dsa.attach("x", run.folder)


def test_an_attached_model_dumps_and_replays_through_its_backbone(run, folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.randint(1, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="this model has no sparse attention"):
        dsa.attached(model)
    dsa.attach(model, run.folder)
    with pytest.raises(ValueError, match=r"is no backbone; give dsa\.attached"):
        dsa.dump_indices(model, tokens, tmp_path / "x.npy")
    backbone = dsa.attached(model)
    found = dsa.dump_indices(backbone, tokens, tmp_path / "x.npy")
    assert found.shape[:2] == (LENGTH, 2)
    for wrong in (tokens[0], tokens.repeat(2, 1)):
        with pytest.raises(ValueError, match="give one text"):
            dsa.dump_indices(backbone, wrong, tmp_path / "x.npy")
    with torch.no_grad():
        replayed = backbone.run(tokens, dsa.replay_indices(backbone, found)).logits
        assert replayed.equal(model(input_ids=tokens, use_cache=False).logits)
    with pytest.raises(ValueError, match="this model has no sparse attention"):
        dsa.attached(dsa.detach(model))


@torch.no_grad()
def test_a_model_whose_attention_is_taken_elsewhere_is_refused_and_not_dense_without_a_word(run, folder):
    tokens = torch.randint(1, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    sparse = model(tokens, use_cache=False).logits
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"^model: its layers attend through another implementation"):
        model(tokens, use_cache=False)
    dsa.attach(dsa.detach(model), run.folder)
    assert model(tokens, use_cache=False).logits.equal(sparse)


@torch.no_grad()
def test_a_mask_that_adds_to_what_is_seen_is_refused(run, folder):
    tokens = torch.randint(1, 60, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    sparse = model(tokens, use_cache=False).logits
    hidden = torch.full((LENGTH, LENGTH), -1e4).triu(1)[None, None]
    assert model(tokens, attention_mask=hidden, use_cache=False).logits.equal(sparse)
    with pytest.raises(ValueError, match=r"^attention_mask: it adds to the logits of keys that may be seen\."):
        model(tokens, attention_mask=hidden - 0.5, use_cache=False)


def test_a_model_within_a_wrapper_is_refused(run, folder):
    class Wrapper(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def get_base_model(self):
            return self.model

    wrapped = Wrapper(AutoModelForCausalLM.from_pretrained(folder))
    with pytest.raises(ValueError, match=r"attach to model\.get_base_model\(\), or before it is wrapped\.$"):
        dsa.attach(wrapped, run.folder)
    assert dsa.attach(wrapped.get_base_model(), run.folder) is wrapped.model


@pytest.mark.parametrize("damage", ["json", "keys", "weights", "missing"])
def test_saved_indexers_that_are_not_whole_are_refused_and_left_as_they_are(run, folder, tmp_path, damage):
    place = dsa.save_indexers(run, tmp_path / "given")
    told, weights = place / "indexers.json", place / "indexers.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        file = weights if damage == "weights" else told
        file.write_bytes(b'{"schema": 1}' if damage == "keys" else file.read_bytes()[:50])
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    with pytest.raises(
        ValueError, match=r"given: damaged or half copied \(.*\); write it again with dsa\.save_indexers"
    ):
        dsa.attach(AutoModelForCausalLM.from_pretrained(folder), place)
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
