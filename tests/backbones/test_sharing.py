"""A router that several sites share: one choice for all of them, for one pass, and losses from each."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.backbones import Pass
from dsa.training.objective import language_model_loss


@pytest.fixture
def tokens():
    return torch.randint(64, (4, 64), generator=torch.Generator().manual_seed(0))


def shared(*overrides, of=(0, 0)):
    """Two sites, both routed by what the first one's router decides."""
    model = build_model(compose([*SMALL, "pattern=causal", "selector.k=8", *overrides]), 64)
    model.attach(list(model.routers)[: max(of) + 1], of)
    return model.train()


def total(model, tokens):
    logits, losses = model.run(tokens, Pass(teach=True))
    return language_model_loss(logits, tokens) + losses["indexer"]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("indexer", ["h2d16", "ultra_light"])
def test_both_sites_attend_to_one_selection_and_the_router_stands_once(tokens, indexer):
    seen = []
    model = shared(f"indexer={indexer}")
    model.run(tokens, Pass(observe=seen.append))
    assert len(model.routers) == 1 and [layer.layer for layer in seen] == [0, 1]
    assert seen[0].selection is seen[1].selection
    assert not torch.equal(seen[0].queries, seen[1].queries)
    apart = []
    own = shared(f"indexer={indexer}", of=(0, 1))
    own.run(tokens, Pass(observe=apart.append))
    assert torch.equal(apart[0].selection.positions, seen[0].selection.positions)
    assert not torch.equal(apart[1].selection.positions, seen[1].selection.positions)


def test_the_router_learns_from_both_sites(tokens):
    both = shared()
    both.run(tokens, Pass(teach=True)).losses["indexer"].backward()
    summed = gradients(both.routers[0])
    parts = []
    for site in (0, 1):
        model = shared()
        block = model.blocks[site].attention
        seen = []
        forward = block.forward
        block.forward = lambda *given, forward=forward, seen=seen: seen.append(forward(*given)) or seen[-1]
        model.run(tokens, Pass(teach=True))
        seen[0][1]["indexer"].backward()
        parts.append(gradients(model.routers[0]))
    for name, gradient in summed.items():
        torch.testing.assert_close(gradient, (parts[0][name] + parts[1][name]) / 2)
        assert parts[0][name].any() and parts[1][name].any(), name


def test_recomputing_blocks_in_the_backward_pass_changes_no_gradient(tokens):
    plain, again = shared("model.checkpointing=false"), shared("model.checkpointing=true")
    for model in (plain, again):
        total(model, tokens).backward()
    assert_equal(gradients(plain), gradients(again))


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_two_forwards_before_one_backward_give_the_sum_of_their_gradients(tokens, checkpointing):
    model = shared(f"model.checkpointing={checkpointing}")
    halves = tokens.chunk(2)
    (total(model, halves[0]) + total(model, halves[1])).backward()
    together = gradients(model)
    model.zero_grad()
    for half in halves:
        total(model, half).backward()
    assert_equal(together, gradients(model))


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_a_selection_never_outlives_its_pass(tokens, checkpointing):
    model, how, seen = shared(f"model.checkpointing={checkpointing}"), Pass(observe=lambda x: seen.append(x)), []
    first, second = tokens.chunk(2)
    alone = model(second)
    model.run(first, how)
    again = model.run(second, how).logits  # the very same pass object
    assert torch.equal(again, alone)
    assert not how.routes
    assert seen[2].selection is seen[3].selection is not seen[0].selection
    model.run(first[:1, :16], how)  # other shapes would not even fit


def test_a_router_of_a_later_site_and_a_site_without_one_are_refused():
    model = shared(of=(0, 1))
    routers = list(model.routers)
    with pytest.raises(ValueError, match="the router of site 0 reads site 1, which is later"):
        model.attach(routers, [1, 1])
    with pytest.raises(ValueError, match="1 sites are routed, the backbone has 2"):
        model.attach(routers[:1])
