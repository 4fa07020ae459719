"""A router that several sites share: one choice for all of them, for one pass, and losses from each."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose, ops
from dsa.backbones import Pass
from dsa.judging.cost import flops, indexer_megabytes, parameters
from dsa.ops import TrueAttention
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
    plain, again = shared("memory.checkpoint=false"), shared("memory.checkpoint=true")
    for model in (plain, again):
        total(model, tokens).backward()
    assert_equal(gradients(plain), gradients(again))


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_two_forwards_before_one_backward_give_the_sum_of_their_gradients(tokens, checkpointing):
    model = shared(f"memory.checkpoint={checkpointing}")
    halves = tokens.chunk(2)
    (total(model, halves[0]) + total(model, halves[1])).backward()
    together = gradients(model)
    model.zero_grad()
    for half in halves:
        total(model, half).backward()
    assert_equal(together, gradients(model))


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_a_selection_never_outlives_its_pass(tokens, checkpointing):
    model, how, seen = shared(f"memory.checkpoint={checkpointing}"), Pass(observe=lambda x: seen.append(x)), []
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


def every(number, *overrides):
    """Four sites, each `number` of them routed by the first one's router: what a configuration gives."""
    model = build_model(compose([*SMALL, "pattern=causal", "selector.k=8", "model.layers=4", *overrides,
                                 f"index_every={number}"]), 64)  # fmt: skip
    return model.train()


@pytest.mark.parametrize(("number", "of"), [
    (1, (0, 1, 2, 3)), (2, (0, 0, 1, 1)), (3, (0, 0, 0, 1)), (4, (0,) * 4),
    ("[0,1,3]", (0, 1, 1, 2)), ("[0]", (0,) * 4),
])  # fmt: skip
def test_a_configuration_says_how_many_sites_share_a_router(tokens, number, of):
    model, own, seen = every(number), every(1), []
    model.run(tokens, Pass(observe=seen.append))
    assert model.router_of == of
    assert [router.site for router in model.routers] == [of.index(router) for router in sorted(set(of))]
    for site, router in enumerate(of):
        assert seen[site].selection is seen[of.index(router)].selection
    assert len({id(layer.selection) for layer in seen}) == len(model.routers)
    for router in model.routers:  # they begin as that site's own would
        assert_equal(router.indexer.state_dict(), own.routers[router.site].indexer.state_dict())


def test_controls_choose_at_every_site(tokens):
    model = every(2, "selector=oracle")
    assert model.router_of == (0, 1, 2, 3)


def test_a_shared_indexer_counts_once():
    one, two = every(1), every(2)
    assert flops(two, 64, 0.5)["indexer"] == flops(one, 64, 0.5)["indexer"] / 2
    assert flops(two, 64, 0.5)["sparse_attention"] == flops(one, 64, 0.5)["sparse_attention"]
    assert parameters(two)["indexer"] == parameters(one)["indexer"] / 2
    assert indexer_megabytes(two, 64) == indexer_megabytes(one, 64) / 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_recomputing_blocks_changes_no_gradient_of_routers_that_several_sites_share(tokens, number):
    plain, again = (every(number, f"memory.checkpoint={flag}") for flag in ("false", "true"))
    halves = tokens.chunk(2)
    for model in (plain, again):
        (total(model, halves[0]) + total(model, halves[1])).backward()  # two forwards before one backward
    assert_equal(gradients(plain), gradients(again))
    for half in halves:
        total(plain, half).backward()
    for name, twice in gradients(plain).items():
        torch.testing.assert_close(twice, 2 * gradients(again)[name], msg=name)


def test_joint_training_teaches_the_mean_of_the_sites_attention_over_the_selection(tokens):
    model, seen = every(4), []
    model.run(tokens, Pass(teach=True)).losses["indexer"].backward()
    taught = gradients(model.routers[0])
    model.zero_grad()
    model.run(tokens, Pass(observe=seen.append))
    target = torch.stack([attention(each.queries, each.keys, each.logsumexp) for each in seen]).mean(0)
    cast, kept = seen[0].cast, seen[0].selection
    ops.indexer_loss(cast, target, kept).backward()
    assert_equal(taught, gradients(model.routers[0]))


def attention(queries, keys, logsumexp):
    """Mean over heads of softmax(q k) by its log-sum-exp, of earlier keys; of selected ones where that is over them."""
    time = slice(0, queries.shape[2])
    later = torch.ones(queries.shape[2], queries.shape[2], dtype=torch.bool).triu(1)
    return TrueAttention(queries, keys, logsumexp).scores(time, time).masked_fill(later, 0) / queries.shape[1]
