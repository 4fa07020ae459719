"""An attached model of transformers generates: with its own cache or one of ours, padded or not, as in one pass."""

# ruff: noqa: F811  (fixtures of another file are given by their names)

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from conftest import fitting
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

import dsa
from dsa.backbones.pretrained.cache import GrowingCache
from training.test_pretrained_run import folder, run, settings  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow


def near(pattern):
    """Its library, with windows in which keys are left out."""
    return [f"pattern={pattern}", "pattern.patterns.near.window=4"]


KINDS = {
    "lightning": [],
    "shared": ["index_every=2"],
    "dynamic": ["indexer=dynamic", "indexer.members=[h1d4,h2d8]", "indexer.prefix=16", "indexer.compute=0.6"],
    "multi_head": near("multi_head"),
    "learned": near("learned"),
    "adaptive": [*near("adaptive"), "pattern.prefix=8"],
    **{name: [*fitting("indexer", name), "selector.k=8"] for name in ("multi_scale", "minimax_m3", "quest", "hisa")},
}


@pytest.mark.parametrize("own", KINDS.values(), ids=KINDS)
def test_token_by_token_equals_one_pass_and_left_padding_changes_nothing(own, settings, folder):
    groups = {one.split("=")[0] for one in own}
    run = dsa.train(dsa.compose([*(one for one in settings if one.split("=")[0] not in groups), *own]))
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    tokens = torch.randint(1, 60, (2, 30), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[0, :7] = 0
    with torch.no_grad():
        whole = model(input_ids=tokens, use_cache=False).logits
        parts, cache = [], DynamicCache()
        for part in (tokens[:, :13], tokens[:, 13:15], *tokens[:, 15:].split(1, 1)):
            parts.append(model(input_ids=part, past_key_values=cache, use_cache=True).logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
        settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        padded = model.generate(tokens, attention_mask=mask, **settings)
        alone = [model.generate(row[None], **settings) for row in (tokens[0, 7:], tokens[1])]
        slow = model.generate(tokens, attention_mask=mask, use_cache=False, **settings)
        growing = model.generate(tokens, attention_mask=mask, past_key_values=GrowingCache(model.config), **settings)
    assert padded[0, 7:].equal(alone[0][0]) and padded[1].equal(alone[1][0]) and padded.equal(slow)
    assert growing.equal(padded)


def test_right_padding_changes_nothing(run, folder):
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    tokens = torch.randint(1, 60, (2, 30), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens)
    mask[0, 23:] = 0
    with torch.no_grad():
        padded = model(
            input_ids=tokens, attention_mask=mask, use_cache=True, past_key_values=GrowingCache(model.config)
        )
        alone = [model(input_ids=row[None], use_cache=False).logits[0] for row in (tokens[0, :23], tokens[1])]
    for row, single in zip(padded.logits, alone, strict=True):
        torch.testing.assert_close(row[: len(single)], single, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_cache_of_ours_grows_in_place_and_gives_transformers_what_its_own_gives(run, folder):
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    tokens = torch.randint(1, 60, (2, 30), generator=torch.Generator().manual_seed(0))
    ours, theirs, places = GrowingCache(model.config, room=30), DynamicCache(config=model.config), []
    for part in (tokens[:, :13], *tokens[:, 13:].split(1, 1)):
        got, wanted = (model(input_ids=part, past_key_values=cache).logits for cache in (ours, theirs))
        assert got.equal(wanted)
        places.append([layer.keys.data_ptr() for layer in ours.layers])
    assert all(place == places[0] for place in places)
    dsa.detach(model)
    changes = (lambda x: x.crop(-5)), (lambda x: x.reorder_cache(torch.tensor([1, 0]))), (lambda x: x.crop(-1))
    for change in changes:  # cut and in another order: what transformers does to a cache is seen
        for cache in (ours, theirs):
            change(cache)
        got, wanted = (model(input_ids=tokens[:, :1], past_key_values=cache).logits for cache in (ours, theirs))
        assert got.equal(wanted)


@torch.no_grad()
def test_a_run_generates_what_the_attached_model_generates(run, folder):
    tokens = torch.randint(1, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    wanted = model.generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert dsa.load_run(run.folder).generate(tokens, 8, chunk=7).equal(wanted)


def test_a_cache_that_is_not_what_was_read_is_refused(run, folder):
    model = dsa.attach(AutoModelForCausalLM.from_pretrained(folder), run.folder)
    tokens, cache = torch.randint(1, 60, (2, 12), generator=torch.Generator().manual_seed(0)), DynamicCache()
    with torch.no_grad():
        model(input_ids=tokens, past_key_values=cache)
        cache.reorder_cache(torch.tensor([1, 0]))
        with pytest.raises(ValueError, match="its keys are not those that this model read last"):
            model(input_ids=tokens[:, :1], past_key_values=cache)
        foreign = DynamicCache()
        AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens, past_key_values=foreign)
        with pytest.raises(ValueError, match="its keys are not those that this model read last"):
            model(input_ids=tokens[:, :1], past_key_values=foreign)
        for size in (12, 40):  # full at once, or with room
            with pytest.raises(ValueError, match=r"^past_key_values: StaticCache .* fixed size.* give a DynamicCache"):
                model(tokens, past_key_values=StaticCache(model.config, max_cache_len=size))
        cut = DynamicCache()
        model(input_ids=tokens, past_key_values=cut)
        cut.crop(-3)
        with pytest.raises(ValueError, match=r"put in another order \(beam search\) or cut \(decoding that guesses"):
            model(input_ids=tokens[:, :1], past_key_values=cut)
        with pytest.raises(ValueError, match=r"fixed size.* Leave cache_implementation out"):
            model.generate(tokens, cache_implementation="static", max_new_tokens=3, pad_token_id=0)
