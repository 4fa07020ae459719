"""A pass of a model of transformers leaves nothing behind, whoever calls the model, and is there for its backward."""

import copy

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, forgotten, made, routed

from dsa.backbones.pretrained import Adopted

TOKENS = torch.randint(1, 64, (2, 40), generator=torch.Generator().manual_seed(0))


def attached():
    """Two layers that share what the first one chose."""
    return routed(Adopted(made(CONFIGS["llama"]())), 5, every=2)


def gradients(model, passes=1):
    """Of the model's own weights, by its own loss, called as transformers is."""
    model.hf.train()
    model.zero_grad()
    for _ in range(passes):
        model.hf(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.hf.named_parameters()}


def test_after_a_training_step_nothing_of_it_is_alive_and_the_model_can_be_copied():
    model = attached()
    gradients(model)
    assert forgotten(model.hook)
    with torch.no_grad():
        wanted = model.hf.eval()(input_ids=TOKENS).logits
        assert copy.deepcopy(model.hf)(input_ids=TOKENS).logits.equal(wanted)


def test_a_model_is_copied_while_the_outcome_of_a_pass_and_its_cache_are_held():
    model = attached()
    held = model.hf.train()(input_ids=TOKENS)
    assert held.past_key_values is not None and len(model.hook.reads) == 1
    other = copy.deepcopy(model)
    assert other.hook is not model.hook and len(other.hook.reads) == 0
    assert other.hf(input_ids=TOKENS).logits.equal(held.logits)


def test_a_pass_that_fails_leaves_nothing():
    model = attached()
    broken = model.hf.model.layers[1].self_attn.register_forward_hook(lambda *_: 1 / 0)
    for fails in (model.hf, model):
        with pytest.raises(ZeroDivisionError):
            fails(TOKENS)
        assert forgotten(model.hook)
    broken.remove()
    projection = model.hf.model.layers[1].self_attn.q_proj.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.hf(TOKENS)
    projection.remove()
    assert forgotten(model.hook)


def test_layers_that_transformers_itself_recomputes_still_find_what_was_selected():
    model = attached()
    wanted = gradients(model, passes=2)
    model.hf.gradient_checkpointing_enable()
    found = gradients(model, passes=2)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, msg=name)
    assert not forgotten(model.hook), "the backward pass may come at any time"
    assert forgotten(copy.deepcopy(model).hook)
    with torch.no_grad():
        model.hf(input_ids=TOKENS)
    assert forgotten(model.hook)
