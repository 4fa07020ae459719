"""Models of transformers: what stays as it was, what may not be seen, and what learns."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import (
    CONFIGS,
    LATENT,
    SIZES,
    forgotten,
    in_parts,
    left_padding_changes_nothing,
    made,
    routed,
    saved,
)
from transformers import DeepseekV3Config, DynamicCache

from dsa.backbones import Memory, Pass
from dsa.backbones.generation import generate
from dsa.backbones.pretrained import Adopted, Pretrained, interface, masks
from dsa.backbones.pretrained.model import recomputable
from dsa.backbones.router import dense_target
from dsa.data import Batch
from dsa.indexers import BlockMeanIndexer, OverlappingPoolIndexer
from dsa.judging.probe import measure
from dsa.ops.reference import to_mask
from dsa.training.objective import GradientKL, language_model_loss

LENGTH, EARLY = 40, 25


@pytest.fixture
def tokens():
    return torch.randint(1, 64, (2, LENGTH), generator=torch.Generator().manual_seed(0))


UNLIKE = "llama", "gemma2", "gemma3", "gpt_neox", "gpt_oss"  # grouped; cap; windows; no groups, other names; sinks


@pytest.fixture(params=[name if name in UNLIKE else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def tiny(request):
    return made(CONFIGS[request.param]())


def test_dense_and_with_every_key_it_is_the_model_as_it_was(tiny, tokens):
    with torch.no_grad():
        before = tiny(input_ids=tokens).logits
        model = Adopted(tiny)
        assert model.run(tokens, Pass(sparse=False)).logits.equal(before)
        routed(model, LENGTH - 1)  # all but one key of the last query alone: through the kernels of selections
        every = model.run(tokens, Pass()).logits
    torch.testing.assert_close(every[:, :-1], before[:, :-1], atol=1e-4, rtol=0)


def test_nothing_depends_on_later_tokens(tiny, tokens):
    model = routed(Adopted(tiny), 5)
    other = tokens.clone()
    other[:, EARLY:] = torch.randint(1, 64, (2, LENGTH - EARLY), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        dense, one, two = (
            model.run(x, Pass(sparse=s)).logits for x, s in ((tokens, False), (tokens, True), (other, True))
        )
    assert one[:, :EARLY].equal(two[:, :EARLY])
    assert not one[:, EARLY:].equal(two[:, EARLY:])
    assert (one - dense).abs().max() > 1e-3, "5 of 40 keys make a difference, or selection did not act"


@torch.no_grad()
def test_with_a_cache_it_says_what_it_says_without(tiny, tokens):
    """Whatever the architecture calls the cache that it hands its layers."""
    model = routed(Adopted(tiny), 5)
    whole = model.hf(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(in_parts(model, tokens), whole, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("every", [1, 2])
def test_padding_changes_nothing(tiny, tokens, side, every):
    model = routed(Adopted(tiny), 5, every=every)
    mask = torch.ones_like(tokens)
    text = slice(9, None) if side == "left" else slice(None, -9)
    mask[0] = 0
    mask[0, text] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        padded = model.hf(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits
        alone = [model.hf(input_ids=row[None], use_cache=False).logits[0] for row in (tokens[0, text], tokens[1])]
    torch.testing.assert_close(padded[0, text], alone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(padded[1], alone[1], atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", [BlockMeanIndexer, OverlappingPoolIndexer])
def test_blocks_decode_token_by_token_what_one_pass_gives_and_left_padding_changes_nothing(kind, tokens):
    model = routed(Adopted(made(CONFIGS["llama"]())), 10, make=lambda site: kind(site.width, heads=2, dim=8, unit=4))
    whole = model.hf(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(in_parts(model, tokens), whole, atol=1e-5, rtol=1e-4)
    assert left_padding_changes_nothing(model, tokens)


def test_a_layer_with_a_window_of_its_own_and_one_that_is_named_stay_dense():
    for name in ("gemma3", "llama4"):  # a window that moves; chunks
        model = Adopted(made(CONFIGS[name]()))
        assert [layer.window for layer in model.hook.layers] == [16, None] and len(model.sites) == 1
    model = Adopted(made(CONFIGS["llama"]()), leave_dense=[0])
    assert len(model.sites) == 1 and model.hook.layers[0].site is None and model.sites[0].number == 1
    with pytest.raises(ValueError, match=r"^model\.leave_dense: no layer 2; LlamaForCausalLM has layers 0 to 1\.$"):
        Adopted(made(CONFIGS["llama"]()), leave_dense=[2])


def test_indexers_alone_learn_and_the_model_keeps_its_weights(tiny, tokens):
    model = routed(Adopted(tiny), 5)
    model.train()
    assert not tiny.training, "the model is used as it is, without dropout"
    assert model.run(tokens, Pass()).losses == {}
    model.run(tokens, Pass(teach=True)).losses["indexer"].backward()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert learned == {name for name, _ in model.named_parameters() if name.startswith("routers.")}


def test_nothing_of_a_pass_outlives_it(tiny, tokens):
    model = routed(Adopted(tiny), 5)
    with torch.no_grad():
        for _ in range(3):  # as whoever it is attached to calls it
            tiny(input_ids=tokens)
            assert forgotten(model.hook)
    assert len(model.run(tokens, Pass(teach=True)).losses) == 1 and forgotten(model.hook)


def test_what_sites_attend_with_is_what_the_model_attends_with(tiny, tokens, monkeypatch):
    """Attention written out from what a site shows is what the layer computed: its scale, cap, sinks and grouping."""
    seen, computed = [], []
    inner = interface.own_attention

    def kept(module, query, key, value, mask, **kwargs):
        out = inner(module, query, key, value, mask, **kwargs)
        if module.dsa_layer.site is not None:
            computed.append((value, out[0]))
        return out

    model = Adopted(tiny)
    monkeypatch.setattr(interface, "own_attention", kept)
    with torch.no_grad():
        model.run(tokens, Pass(sparse=False, watch=seen.append))
    assert len(seen) == len(computed) == len(model.sites)
    for inputs, (value, out) in zip(seen, computed, strict=True):
        site = inputs.site
        keys, values = (x.repeat_interleave(site.heads // site.kv_heads, 1) for x in (inputs.keys, value))
        logits = inputs.queries @ keys.mT * site.scale
        logits = logits if site.cap is None else site.cap * (logits / site.cap).tanh()
        logits = logits.masked_fill(~torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), -torch.inf)
        if inputs.sink is not None:
            logits = torch.cat([logits, inputs.sink.view(1, -1, 1, 1).expand(2, -1, LENGTH, 1)], -1)
        weights = logits.softmax(-1)[..., :LENGTH]
        torch.testing.assert_close((weights @ values).transpose(1, 2), out, atol=1e-5, rtol=1e-5)
        target = dense_target(site, inputs.queries, inputs.keys, "auto", sink=inputs.sink)
        learned = target.scores(slice(0, LENGTH), slice(0, LENGTH)).tril()
        torch.testing.assert_close(learned, weights.sum(1, keepdim=True), atol=1e-5, rtol=1e-4)
        assert inputs.hidden.shape == (2, LENGTH, site.width)
    assert (seen[0].sink is not None) == any(name.endswith("sinks") for name, _ in tiny.named_parameters())


@pytest.mark.parametrize("name", ["granite", "gemma2", "gpt_oss"])
def test_the_probe_measures_with_the_scale_the_cap_and_the_sinks_of_the_layer(name, tokens):
    model, seen = routed(Adopted(made(CONFIGS[name]())), 5), []
    with torch.no_grad():
        model.run(tokens, Pass(observe=seen.append))
    for site, layer in zip(model.sites, seen, strict=True):
        logits = layer.queries @ layer.keys.repeat_interleave(site.heads // site.kv_heads, 1).mT * site.scale
        logits = logits if site.cap is None else site.cap * (logits / site.cap).tanh()
        logits = logits.masked_fill(~torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), -torch.inf)
        sinks = model.hf.model.layers[1].self_attn.sinks if name == "gpt_oss" else torch.full((site.heads,), -torch.inf)
        logits = torch.cat([logits, sinks.detach().view(1, -1, 1, 1).expand(2, -1, LENGTH, 1)], -1)
        weights = logits.softmax(-1)[..., :-1]
        told = measure(layer)
        assert measure(layer._replace(selection=None)).mass == pytest.approx(weights.sum(-1).mean().item(), rel=1e-4)
        assert told.mass == pytest.approx((weights * to_mask(layer.selection, LENGTH)).sum(-1).mean().item(), rel=1e-4)
        assert told.oracle_mass == pytest.approx(best(weights.sum(1)).item() / site.heads, rel=1e-4)
        shared = weights.sum(1)
        p, scores = shared / shared.sum(-1, keepdim=True), layer.cast.scores(slice(0, LENGTH), slice(0, LENGTH))[:, 0]
        scores = scores.masked_fill(weights[:, 0] == 0, -torch.inf).log_softmax(-1)
        kl = torch.special.xlogy(p, p) - torch.where(p > 0, p * scores, 0.0)
        assert told.kl == pytest.approx(kl.sum(-1).mean().item(), rel=1e-4)


def best(attention):
    """Mean over queries of the attention on the five keys that have most of it."""
    return attention.topk(5, -1).values.sum(-1).mean()


@pytest.mark.parametrize(("name", "base"), [("llama", 7e4), ("gemma3", 1e6), ("gpt_neox", 1e4)])
def test_indexers_turn_by_positions_with_the_wavelength_base_of_the_model(name, base, tokens):
    config, seen = CONFIGS[name](), []
    if name == "llama":
        config.rope_parameters["rope_theta"] = base
    model = routed(Adopted(made(config)), 5)
    with torch.no_grad():
        model.run(tokens, Pass(watch=seen.append))
    assert {inputs.rotary.base for inputs in seen} == {base}


def test_two_models_in_one_process_do_not_meet(tokens):
    one, two = (routed(Adopted(made(CONFIGS[name]())), 5) for name in ("llama", "qwen3"))
    alone = routed(Adopted(made(CONFIGS["llama"]())), 5)
    with torch.no_grad():
        first = one.run(tokens, Pass()).logits
        two.run(tokens, Pass())
        assert one.run(tokens, Pass()).logits.equal(first) and alone.run(tokens, Pass()).logits.equal(first)


@pytest.mark.parametrize("backend", ["reference", "blocked"])
def test_backends_agree_on_grouped_queries_sinks_and_caps(backend, tokens):
    for name in ("llama", "gpt_oss", "gemma2"):
        model = routed(Adopted(made(CONFIGS[name]())), 5)
        seen, other = [], []
        with torch.no_grad():
            one = model.run(tokens, Pass(observe=seen.append)).logits
            routed(model, 5, backend)
            two = model.run(tokens, Pass(observe=other.append)).logits
        assert to_mask(seen[0].selection, LENGTH).equal(to_mask(other[0].selection, LENGTH))
        torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


def test_sizes_are_known_without_weights(tmp_path):
    folder = saved(tmp_path / "tiny", CONFIGS["llama"]())
    with torch.device("meta"):
        assert Pretrained(64, str(folder)).sites == Pretrained(64, str(folder)).sites
    size = Pretrained.size({"path": str(folder)})
    assert (size.layers, size.width, size.heads, size.vocab) == (2, 32, 4, 64)


def test_a_text_longer_than_the_model_reads_is_refused(tokens):
    model = Adopted(made(CONFIGS["llama"]()))
    with pytest.raises(ValueError, match=r"^seq_len = 400: the model reads at most 256 tokens\.$"):
        model.run(tokens.repeat(1, 10), Pass())


def test_a_text_that_would_grow_beyond_what_the_model_reads_is_refused_before_it_grows(tokens):
    model = routed(Adopted(made(CONFIGS["llama"]())), 5)
    with pytest.raises(ValueError, match=r"^new = 218: 40 tokens come before, .* at most 256: give 217 at most\.$"):
        generate(model, tokens, new=218)


def test_a_part_of_the_model_attends_sparsely_or_is_refused(tokens):
    tiny = made(CONFIGS["llama"]())
    routed(Adopted(tiny), 5)
    with pytest.raises(ValueError, match=r"^model: layer 0 was reached by a part of the model"):
        tiny.model(tokens)


def test_a_pass_whose_logits_nobody_wants_gives_the_last_ones_alone(tiny, tokens):
    model = Adopted(tiny)
    with torch.no_grad():
        whole, last = (model.run(tokens, Pass(sparse=False, logits=wanted)).logits for wanted in (True, False))
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_gradient_by_what_each_layer_gives_out_is_that_of_the_loss(tiny, tokens, sparse):
    model = routed(Adopted(tiny).requires_grad_(sparse), 8)
    how, batch = Pass(sparse=sparse), Batch(tokens, tokens.roll(-1, 1))
    found = GradientKL(1.0, True).emphasis(model, batch, how)
    step = 1e-3
    for site in model.sites[-1:] if sparse else model.sites:  # a push would change what later layers select
        upstream = found[site.index].upstream
        toward, ends = upstream / upstream.norm(), []
        for sign in (-1, 1):
            push = lambda seen, by=sign * step * toward, own=site: seen.out.data.add_(by if seen.site is own else 0)
            with torch.no_grad():
                logits = model.run(tokens, replace(how, after=push)).logits.double()
            ends.append(language_model_loss(logits, batch.targets).item())
        assert (ends[1] - ends[0]) / (2 * step) == pytest.approx(upstream.norm().item(), rel=0.05)


def test_layers_that_transformers_recomputes_give_the_same_bits_and_select_the_same_keys(tiny, tokens):
    """Of two passes before one backward pass: by then the hook is at neither of them."""
    torch.set_num_threads(1)  # with two, gpt-oss's experts sum gradients in another order when they run again
    model, found = routed(Adopted(tiny), 8, every=2), []
    for way in (Memory(), Memory(checkpoint=True)):
        model.save_memory(way)
        model.train().zero_grad()
        chosen, losses = [], []
        for step, part in enumerate((tokens, tokens.flip(1)), 1):
            logits, own = model.run(part, Pass(teach=True, step=step, observe=chosen.append))
            losses += [language_model_loss(logits, part), *own.values()]
        forward = len(chosen)
        torch.stack(losses).sum().backward()
        assert len(chosen) == (2 * forward if way.checkpoint else forward)
        assert not model.hook.losses and all(module.training == way.checkpoint for module in recomputable(tiny))
        for again in chosen[forward:]:
            first = [own for own in chosen[:forward] if own.queries.equal(again.queries)]
            assert len(first) == 1 and first[0].selection.positions.equal(again.selection.positions)
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and any("routers" in name for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=0, msg=name)


@torch.no_grad()
def test_texts_packed_into_a_row_are_refused_and_padding_is_read_once_a_pass(monkeypatch, tokens):
    model = routed(Adopted(made(CONFIGS["llama"]())), 5)
    packed = torch.cat([torch.arange(EARLY), torch.arange(LENGTH - EARLY)]).expand(2, -1)
    with pytest.raises(
        ValueError, match=r"^attention_mask: it hides other tokens .* several texts are packed into a row"
    ):
        model.hf(input_ids=tokens, position_ids=packed, use_cache=False)
    ahead = torch.ones(2, 1, LENGTH, LENGTH, dtype=torch.bool).tril(1)
    with pytest.raises(ValueError, match=r"^attention_mask: it hides other tokens"):
        model.hf(input_ids=tokens, attention_mask=ahead, use_cache=False)
    calls, inner = [], masks.texts
    monkeypatch.setattr(masks, "texts", lambda mask, keys: calls.append(keys) or inner(mask, keys))
    mask = torch.ones_like(tokens)
    for padded in (3, 7):
        mask[0, :padded] = 0
        got = model.hf(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        alone = model.hf(input_ids=tokens[:1, padded:], use_cache=False).logits
        torch.testing.assert_close(got[:1, padded:], alone, atol=1e-5, rtol=0)
    assert calls == [LENGTH] * 2, "not once a layer"


@torch.no_grad()
def test_values_may_be_narrower_than_keys(tokens):
    tiny = made(DeepseekV3Config(**SIZES, **LATENT))
    before = tiny(input_ids=tokens).logits
    model = routed(Adopted(tiny), LENGTH - 1)
    assert [site.dim for site in model.sites] == [12, 12] and [layer.values for layer in model.hook.layers] == [8, 8]
    torch.testing.assert_close(model.run(tokens, Pass()).logits[:, :-1], before[:, :-1], atol=1e-4, rtol=0)
    routed(model, 5)
    sparse, parts, cache = tiny(input_ids=tokens, use_cache=False).logits, [], DynamicCache()
    for part in tokens.split([30] + [1] * (LENGTH - 30), 1):
        parts.append(tiny(input_ids=part, past_key_values=cache).logits)
    torch.testing.assert_close(torch.cat(parts, 1), sparse, atol=1e-5, rtol=1e-4)
    assert (sparse - before).abs().max() > 1e-3


def test_values_wider_than_keys_are_refused():
    with pytest.raises(ValueError, match=r"^model: values of DeepseekV3ForCausalLM have 16 dims, its keys 12: "):
        Adopted(made(DeepseekV3Config(**SIZES, **LATENT | {"v_head_dim": 16})))
