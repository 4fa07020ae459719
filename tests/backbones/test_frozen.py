"""Weights held in the format that autocast rounds them to: the same numbers in less time."""

import pytest
import torch
from backbones.tiny_models import CONFIGS, made
from conftest import SMALL

from dsa import compose
from dsa.backbones import Pass
from dsa.backbones.frozen import held_in
from dsa.backbones.pretrained.model import Adopted
from dsa.build import build_backbone, build_data


def of_this_package():
    spec = compose([*SMALL, "recipe=continue"])
    return build_backbone(spec, build_data(spec).vocab_size)


BUILT = {"tiny": of_this_package} | {
    name: lambda config=config: Adopted(made(config())) for name, config in CONFIGS.items()
}


@pytest.mark.parametrize("name", BUILT)
def test_under_autocast_a_pass_gives_the_same_numbers_bit_for_bit(name):
    model = BUILT[name]()
    tokens = torch.randint(1, 64, (2, 40), generator=torch.Generator().manual_seed(0))

    def found():
        seen = []
        how = Pass(sparse=False, watch=lambda at: seen.extend((at.hidden, at.queries, at.keys)))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return [model.run(tokens, how).logits, *seen]

    before = found()
    held_in(torch.bfloat16, model)
    after = found()
    assert len(before) == len(after) > 3 and all(x.equal(y) for x, y in zip(before, after, strict=True))
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    assert layers and {layer.weight.dtype for layer in layers} == {torch.bfloat16}
    (embedding,) = (layer for layer in model.modules() if isinstance(layer, torch.nn.Embedding))
    assert embedding.weight.dtype == torch.float32
