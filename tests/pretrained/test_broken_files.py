"""Files of a model that are damaged, cut short or not all there: one sentence that names model.path."""

import json

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, SIZES, saved
from conftest import QUIET
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from dsa import compose
from dsa.backbones.pretrained import Pretrained
from dsa.doors.budget import main
from dsa.training.fits import size_of


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path / "tiny", CONFIGS["llama"](), tokenizer=True)


def cut(folder):
    """Weights that were half downloaded."""
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def without(folder, name="model.layers.1.mlp.up_proj.weight"):
    """A weight is not there."""
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def unknown(folder):
    """An architecture that nobody knows."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nobodys"}))


def no_json(folder):
    """A configuration that ends in the middle."""
    (folder / "config.json").write_text((folder / "config.json").read_text()[:40])


def no_object(folder):
    """A configuration that holds no names."""
    (folder / "config.json").write_text("[]")


def misshapen(folder, name="model.layers.1.mlp.up_proj.weight"):
    """A weight is of another model."""
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.zeros(7, 32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def diverged(folder, name="model.layers.1.mlp.up_proj.weight"):
    """A weight holds what no number is."""
    weights = load_file(folder / "model.safetensors")
    weights[name][3, 4] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def adapters(folder):
    """What training adapters saved."""
    (folder / "config.json").rename(folder / "adapter_config.json")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def quantised(folder):
    """Weights in a format that needs a package."""
    config = json.loads((folder / "config.json").read_text())
    told = config | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(told))


def no_tokenizer(folder):
    """A tokenizer that ends in the middle."""
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:40])


WRONG = [
    (cut, r"model\.path = .*: its files cannot be read \(SafetensorError: "),
    (without, r"model\.path = .*: its files lack 1 of the model's weights \(model\.layers\.1\.mlp\.up_proj\.weight, "),
    (unknown, r"model\.path = .*: its files cannot be read \(ValueError: .*nobodys"),
    (no_json, r"model\.path = .*: its config\.json is no JSON"),
    (no_object, r"model\.path = .*: its config\.json holds no object of names and values"),
    (
        misshapen,
        r"model\.path = .*: 1 of its weights have other shapes .*\(model\.layers\.1\.mlp\.up_proj\.weight: \(7, 32",
    ),
    (diverged, r"model\.path = .*: its weight model\.layers\.1\.mlp\.up_proj\.weight holds values that are no finite"),
    (adapters, r"model\.path = .*: adapters alone lie there \(adapter_config\.json\)\. Merge them"),
    (quantised, r"model\.path = .*: to read it a package is needed that is not installed \(.*gptqmodel"),
    (no_tokenizer, r"data: tokenizer\.json of the model .* cannot be read"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "said"), WRONG, ids=[damage.__name__ for damage, _ in WRONG])
def test_budget_and_run_say_it_in_a_sentence(folder, tmp_path, damage, said, capsys):
    (tmp_path / "text").mkdir()
    for number in range(12):
        (tmp_path / "text" / f"{number}.txt").write_text("def self return None for in " * 40 + str(number))
    damage(folder)
    assert main(["model=pretrained", f"model.path={folder}", "data=text_model", f"data.path={tmp_path / 'text'}",
                 f"cache_dir={tmp_path}", "seq_len=32", f"output_dir={tmp_path / 'outputs'}", *QUIET]) == 2  # fmt: skip
    error = capsys.readouterr().err
    assert error.count("\n") <= 2 and error.startswith("error: ")
    with pytest.raises(ValueError, match=said):
        raise ValueError(error)


def test_weights_that_the_model_has_no_place_for_are_told(folder, caplog):
    """Of a further layer, of one that its configuration leaves out; not those that transformers knows to be nothing."""
    weights = load_file(folder / "model.safetensors")
    old = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights | old, folder / "model.safetensors", {"format": "pt"})
    Pretrained(64, str(folder))
    assert not caplog.messages
    more = {"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32)}
    more["model.layers.1.self_attn.q_proj.bias"] = torch.ones(32)
    save_file(weights | old | more, folder / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        Pretrained(64, str(folder))
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(
        f"model.path = {folder}: its files hold 2 weights that the model of its config.json has no place for "
        "(model.layers.1.self_attn.q_proj.bias, ...). It is read without them: "
    )


def test_weights_that_are_tied_need_not_be_there_twice(tmp_path):
    config = CONFIGS["llama"]()
    config.tie_word_embeddings = True
    folder = saved(tmp_path / "tied", config)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = Pretrained(64, str(folder)).hf
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_sizes_are_read_whatever_their_names(tmp_path):
    folder = tmp_path / "gpt2"
    GPT2Config(n_layer=3, n_embd=24, n_head=2, vocab_size=50).save_pretrained(folder)
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    spec = compose(["model=pretrained", f"model.path={folder}", "seq_len=32"])
    assert size_of(spec)[:5] == (3, 24, 96, 2, 50)
    named = {"text_config": {"model_type": "gemma3_text"} | SIZES, "model_type": "gemma3", "vision_config": {}}
    other = tmp_path / "nested"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(named))
    save_file({"x": torch.zeros(1)}, other / "model.safetensors")
    assert Pretrained.size({"path": str(other)})[:5] == (2, 32, 64, 4, 64)


def test_sizes_that_a_configuration_does_not_say_are_asked_for(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "encodec"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"^model\.path = .*: its config\.json does not say num_hidden_layers"):
        Pretrained.size({"path": str(tmp_path)})
