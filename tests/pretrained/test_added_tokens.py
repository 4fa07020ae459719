"""Tokens that a model has no row for: those added to its tokenizer matter where a text holds them, and a tokenizer that
has more of its own is another model's."""

import pytest

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, GROUPED, saved
from tokenizers import Tokenizer
from transformers import LlamaConfig

from dsa import compose
from dsa.build import build_backbone, build_data


@pytest.fixture(scope="module")
def stray(tmp_path_factory):
    """A model with a row for each token of its tokenizer but the one that was added last, as Gemma 3 1B has it."""
    folder = saved(tmp_path_factory.mktemp("model") / "llama", CONFIGS["llama"](), tokenizer=True)
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    spare = [f"<spare{number}>" for number in range(64 - engine.get_vocab_size())]
    engine.add_special_tokens([*spare, "<image>"])
    assert engine.token_to_id("<image>") == 64
    engine.save(str(folder / "tokenizer.json"))
    return folder


def spec_of(model, place, text):
    (place / "text").mkdir()
    for number in range(12):
        (place / "text" / f"{number}.txt").write_text(text * 40 + f"def {number}")
    return compose(["model=pretrained", f"model.path={model}", "data=text_model", f"data.path={place / 'text'}",
                    f"cache_dir={place}", "seq_len=32"])  # fmt: skip


@pytest.mark.slow
def test_a_token_that_no_text_holds_needs_no_row(stray, tmp_path):
    spec = spec_of(stray, tmp_path, "def self return None for in ")
    data = build_data(spec)
    assert data.vocab_size <= 64 < data.source.tokenizer.vocab_size
    assert build_backbone(spec, data.vocab_size).vocab_size == 64


@pytest.mark.slow
def test_one_that_a_text_holds_is_refused_before_it_is_looked_up(stray, tmp_path):
    spec = spec_of(stray, tmp_path, "def self <image> return None for in ")
    with pytest.raises(ValueError, match=r"go up to 64, the model .* knows 63 and below.* a token that was added"):
        build_backbone(spec, build_data(spec).vocab_size)


@pytest.mark.slow
def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path):
    small = saved(tmp_path / "small", LlamaConfig(**GROUPED | {"vocab_size": 40}), tokenizer=True)
    spec = spec_of(small, tmp_path, "def self return None for in ")
    with pytest.raises(ValueError, match=r"the model .* knows 39 and below.* its tokenizer\.json is another model's"):
        build_backbone(spec, build_data(spec).vocab_size)
