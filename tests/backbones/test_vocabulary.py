"""Tokens that a model does not know are refused in a sentence."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, made

from dsa import build_model, compose
from dsa.backbones import Pass
from dsa.backbones.pretrained import Adopted

MODELS = {
    "own": lambda: build_model(compose(["model=mqar", "recipe=dense"]), 64),
    "pretrained": lambda: Adopted(made(CONFIGS["llama"]())),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_token_beyond_the_vocabulary_is_refused(name):
    model, tokens = MODELS[name](), torch.tensor([[3, 63]])
    model.run(tokens, Pass())
    with pytest.raises(ValueError, match=r"^tokens: from 3 to 64, but the model has tokens 0 to 63\.$"):
        model.run(tokens + torch.tensor([0, 1]), Pass())
    with pytest.raises(ValueError, match=r"^tokens: from -1 to 3, but"):
        model.generate(torch.tensor([[3, -1]]), 1)
