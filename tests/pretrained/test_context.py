"""Texts longer than a model is made for, given to it as whoever it is attached to gives them: told, and read."""

import warnings

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, made, routed

from dsa.backbones.pretrained import Adopted

CONTEXT = 24


@torch.no_grad()
def test_a_text_beyond_the_context_is_told_and_padding_is_none_of_it():
    config = CONFIGS["llama"]()
    config.max_position_embeddings = CONTEXT
    tiny = routed(Adopted(made(config)), 5).hf
    tokens = torch.randint(1, 64, (2, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[:, 0] = 0
    settings = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny(input_ids=tokens[:, :CONTEXT], use_cache=False)
        tiny(input_ids=tokens, attention_mask=mask, use_cache=False)
        tiny.generate(tokens[:, :20], max_new_tokens=CONTEXT - 19, **settings)  # the last one is not read
    said = r"^model: it is given a text of more tokens than it is made for \(max_position_embeddings = 24\); "
    with pytest.warns(UserWarning, match=said):
        tiny(input_ids=tokens, use_cache=False)
    with warnings.catch_warnings(record=True) as told:
        tiny.generate(tokens[:, :20], max_new_tokens=CONTEXT - 16, **settings)
    assert len([one for one in told if str(one.message).startswith("model: ")]) == 1, "not once a token"
