"""Indexers whose queries come from the latent of the model's own queries, on models that have one."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import LATENT, SIZES, in_parts, left_padding_changes_nothing, made, routed
from transformers import AutoConfig

from dsa.backbones import Memory, Pass
from dsa.backbones.pretrained import Adopted
from dsa.indexers import GatedPoolIndexer, LightningIndexer, OverlappingPoolIndexer, TwoStageIndexer
from dsa.judging.cost import flops, parameters
from dsa.training.objective import language_model_loss

LENGTH, EARLY, RANK = 40, 25, LATENT["q_lora_rank"]
KINDS = ["deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu", "axk1"]
INDEXERS = {
    "lightning": (LightningIndexer, {}),
    "gated_pool": (GatedPoolIndexer, {"unit": 4}),
    "overlapping_pool": (OverlappingPoolIndexer, {"unit": 4}),
    "two_stage": (TwoStageIndexer, {"block": 4, "blocks": 3}),
}


def tiny(kind="deepseek_v3", **sizes):
    return made(AutoConfig.for_model(kind, **SIZES, **LATENT | sizes))


def low_rank(name, every=1):
    """A model whose indexers, of some class, project their queries from its latent."""
    cls, own = INDEXERS[name]

    def make(site):
        return cls(site.width, heads=2, dim=8, **own, latent=True, latent_width=site.latent)

    return routed(Adopted(tiny()), 10, every=every, make=make)


@pytest.fixture
def tokens():
    return torch.randint(1, 64, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_latent_of_a_site_is_what_the_model_projects_its_queries_from(kind, tokens):
    model, seen, norms = Adopted(tiny(kind)), [], []
    for layer in model.hf.model.layers:
        layer.self_attn.q_a_layernorm.register_forward_hook(lambda *called: norms.append(called[2]))
    model.run(tokens, Pass(sparse=False, watch=seen.append))
    assert [site.latent for site in model.sites] == [RANK, RANK]
    assert len(seen) == 2 and all(one.latent.equal(normed) for one, normed in zip(seen, norms, strict=True))
    assert not any(layer.latent is not None for layer in model.hook.layers), "none outlives its layer"


def test_a_model_without_a_latent_has_none(tokens):
    model, seen = Adopted(tiny(q_lora_rank=None)), []
    model.run(tokens, Pass(sparse=False, watch=seen.append))
    assert [site.latent for site in model.sites] == [0, 0] and [one.latent for one in seen] == [None, None]


@torch.no_grad()
@pytest.mark.parametrize("name", INDEXERS)
def test_queries_alone_come_from_the_latent(name, tokens):
    """Another latent gives other queries and the same keys and weights; other hidden states give other keys."""
    model, seen = low_rank(name), []
    indexer = model.router(0).indexer
    model.run(tokens, Pass(watch=seen.append))
    hidden, rotary, latent = seen[0].hidden, seen[0].rotary, seen[0].latent
    one, other = (indexer(hidden, rotary, latent=each) for each in (latent, latent.flip(1)))
    assert one.keys.equal(other.keys) and one.weights.equal(other.weights) and not one.queries.equal(other.queries)
    other = indexer(hidden.flip(1), rotary, latent=latent)
    assert one.queries.equal(other.queries) and not one.keys.equal(other.keys)
    assert indexer.to_query.in_features == RANK


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", INDEXERS)
@pytest.mark.parametrize("every", [1, 2])
def test_nothing_depends_on_later_tokens_and_parts_with_a_cache_give_one_pass(name, every, tokens):
    model = low_rank(name, every)
    other = tokens.clone()
    other[:, EARLY:] = torch.randint(1, 64, (2, LENGTH - EARLY), generator=torch.Generator().manual_seed(1))
    dense = model.run(tokens, Pass(sparse=False)).logits
    whole, changed = (model.run(each, Pass()).logits for each in (tokens, other))
    assert whole[:, :EARLY].equal(changed[:, :EARLY]) and not whole[:, EARLY:].equal(changed[:, EARLY:])
    assert (whole - dense).abs().max() > 1e-3
    torch.testing.assert_close(in_parts(model, tokens), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_padding_on_the_left_changes_nothing(tokens):
    model = low_rank("gated_pool")
    assert left_padding_changes_nothing(model, tokens)


def test_indexers_learn_from_the_latent_and_no_gradient_goes_back_into_it(tokens):
    model = low_rank("lightning")
    model.train()
    model.run(tokens, Pass(teach=True, step=1)).losses["indexer"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.router(0).indexer.parameters())
    assert all(p.grad is None for p in model.hf.parameters())


def test_recomputed_layers_give_the_same_bits(tokens):
    model, found = low_rank("lightning"), []
    for way in (Memory(), Memory(checkpoint=True)):
        model.save_memory(way)
        model.train().zero_grad()
        logits, losses = model.run(tokens, Pass(teach=True, step=1))
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any("to_query" in name for name in found[0])
    for name, gradient in found[0].items():
        assert found[1][name].equal(gradient), name


def test_what_queries_from_the_latent_cost_is_counted():
    from_latent, from_hidden = low_rank("lightning"), routed(Adopted(tiny()), 10)
    fewer = (SIZES["hidden_size"] - RANK) * 2 * 8 * len(from_latent.sites)
    assert parameters(from_hidden)["indexer"] - parameters(from_latent)["indexer"] == fewer
    one, other = (flops(model, LENGTH, 0.5)["indexer"] for model in (from_hidden, from_latent))
    assert one - other == 2 * LENGTH * fewer
