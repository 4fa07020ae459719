"""Models into which sparse attention cannot be put, told in a sentence."""

import pytest

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, BloomConfig, DiffLlamaConfig, GPTNeoConfig

from dsa.backbones.pretrained import Adopted


def test_architectures_that_cannot_be_served_are_refused_in_a_sentence():
    small = {"vocab_size": 64, "hidden_size": 32}
    for config in (
        BloomConfig(**small, n_layer=1, n_head=2),
        GPTNeoConfig(**small, num_layers=1, num_heads=2, attention_types=[[["global"], 1]]),
    ):
        with pytest.raises(ValueError, match=r"does not call transformers' attention interface.*Llama, Qwen"):
            Adopted(AutoModelForCausalLM.from_config(config))
    encoder = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertLMHeadModel(BertConfig(**small, **encoder))
    with pytest.raises(ValueError, match=r"^model: attention of BertLMHeadModel sees later tokens too"):
        Adopted(bert)
    assert not any(hasattr(module, "dsa_layer") for module in bert.modules()), "it stays as it was"
    assert Adopted(BertLMHeadModel(BertConfig(**small, **encoder, is_decoder=True))).sites
    twice = DiffLlamaConfig(**small, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(
        ValueError, match=r"^model: DiffLlama\w+ calls transformers' attention interface more than once"
    ):
        Adopted(AutoModelForCausalLM.from_config(twice))
