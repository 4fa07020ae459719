"""Tokens that come one by one, after others in chunks, see what one pass shows them; and text from a model."""

import pytest
import torch
from backbones.test_offset import build, whole_and_parts
from conftest import SMALL, fitting, indexers, options
from test_causality import SIZES

from dsa import build_model, compose
from dsa.backbones import Cache, Pass
from dsa.judging.certificate import decoded
from dsa.ops.rotary import CannotGoOn

LENGTH = 28
CUTS = [14, 23, *range(24, LENGTH)]
ONE_SIZE = [
    (group, name)
    for group in ("pattern", "selector", "precision")
    for name in options(group)
    if group == "precision" or name == "ratio_25" or not name[-1].isdigit()  # others are the same with other numbers
]
ON_A_BOUNDARY = 0.04  # of the queries: a number between two of a format's may be rounded to either, by its last digit


def text(rows=2, length=LENGTH):
    return torch.randint(64, (rows, length), generator=torch.Generator().manual_seed(rows))


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), ONE_SIZE, ids=lambda value: value)
def test_every_pattern_selector_and_precision_decodes_what_one_pass_gives(group, name):
    k = ["selector.k=8"] if group != "selector" or name == "topk" else []
    whole, parts = whole_and_parts(build("pattern=causal", *fitting(group, name), *k), text(), CUTS)
    allowed = ON_A_BOUNDARY if group == "precision" and name != "fp32" else 0.0
    other = ~torch.isclose(parts[0], whole[0], atol=1e-5, rtol=0).all(-1)
    assert other.float().mean() <= allowed
    assert parts[1].keys() == whole[1].keys()
    same = [a == b for place in whole[1] for a, b in zip(parts[1][place], whole[1][place], strict=True)]
    assert 1 - sum(same) / len(same) <= allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in indexers() if name not in SIZES])
def test_every_kind_of_indexer_decodes_what_one_pass_gives(name):
    whole, parts = whole_and_parts(build("pattern=causal", "selector.k=10", *fitting("indexer", name)), text(), CUTS)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-5, rtol=0)
    assert parts[1] == whole[1]


def test_a_shared_router_decodes_what_one_pass_gives():
    model = build("pattern=causal", "selector.k=8", "index_every=2")
    assert len(model.routers) == 1
    whole, parts = whole_and_parts(model, text(), CUTS)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-5, rtol=0)
    assert parts[1] == whole[1]


@torch.no_grad()
def test_a_token_is_added_without_a_copy_of_those_before_it():
    model, cache = build("pattern=causal", "selector.k=8"), Cache(room=LENGTH)
    places = []
    for part in text().tensor_split(CUTS, 1):
        model.run(part, Pass(cache=cache))
        places.append({key: kept.data_ptr() for key, kept in cache.kept.items() if key[0] != "conv"})
    assert all(place == places[0] for place in places) and {name for name, _ in places[0]} == {"key", "value", "index"}
    small, sizes = Cache(), set()
    for part in text().tensor_split(CUTS, 1):
        model.run(part, Pass(cache=small))
        sizes.add(tuple(kept.shape[2] for (name, _), kept in small.kept.items() if name != "conv"))
    assert sizes == {(14,) * 6, (30,) * 6}, "what is full grows by half: once, to 23 tokens and half of 14"


def test_a_gradient_goes_through_a_cache_and_finds_what_it_went_through_unchanged():
    model, tokens = build("pattern=causal", "selector.k=8"), text()
    weight = model.blocks[0].attention.to_qkv.weight
    (whole,) = torch.autograd.grad(model(tokens).square().sum(), weight)
    how = Pass(cache=Cache())
    logits = torch.cat([model.run(part, how).logits for part in tokens.tensor_split([14, 20, 21], 1)], 1)
    (parts,) = torch.autograd.grad(logits.square().sum(), weight)
    torch.testing.assert_close(parts, whole, atol=1e-6 * whole.abs().max().item(), rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_generated_tokens_are_those_of_whole_passes_in_any_chunks():
    model, tokens = build("pattern=causal", "selector.k=8"), text(length=16)
    wanted = tokens
    for _ in range(6):
        wanted = torch.cat([wanted, model(wanted)[:, -1:].argmax(-1)], 1)
    for chunk in (None, 1, 7):
        assert model.generate(tokens, 6, chunk=chunk).equal(wanted)
    dense = tokens
    for _ in range(6):
        dense = torch.cat([dense, model.run(dense, Pass(sparse=False)).logits[:, -1:].argmax(-1)], 1)
    assert model.generate(tokens, 6, how=Pass(sparse=False)).equal(dense)


@pytest.mark.slow
@torch.no_grad()
def test_drawn_tokens_follow_a_seed_and_a_temperature():
    model, tokens = build("pattern=causal", "selector.k=8"), text(length=8)
    first, again, other = (model.generate(tokens, 8, temperature=1.0, seed=seed) for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)
    assert model.generate(tokens, 8, temperature=1e-6).equal(model.generate(tokens, 8))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_texts_go_on_as_they_do_alone_and_their_padding_stays(side):
    model, tokens = build("pattern=causal", "selector.k=4"), text(rows=3, length=12)
    lengths, mask = (7, 12, 7), torch.zeros(3, 12, dtype=torch.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(12 - length, None) if side == "left" else slice(length)] = 1
    padded = torch.where(mask.bool(), tokens, -1)  # a padding that the model does not have is not read
    found = model.generate(padded, 5, attention_mask=mask)
    assert found[:, :12].equal(padded)
    for row, chosen in enumerate(mask.bool()):
        assert found[row, 12:].equal(model.generate(tokens[row][chosen][None], 5)[0, -5:])
    assert found.equal(model.generate(padded, 5, chunk=5, attention_mask=mask.bool()))


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ([[1, 1, 1], [1, 0, 1]], "attention_mask: row 1 is all padding or has some between its tokens"),
        ([[0, 0, 0], [1, 1, 1]], "attention_mask: row 0 is all padding"),
        ([[1, 1, 1]], r"attention_mask is of shape \(1, 3\), the tokens are of \(2, 3\): give one entry a token"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_mask_that_does_not_pad_texts_at_their_ends_is_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        build("pattern=causal").generate(text(length=3), 1, attention_mask=torch.tensor(mask))


def test_a_mask_beside_a_cache_is_refused():
    model, tokens = build("pattern=causal"), text(length=3)
    with pytest.raises(ValueError, match="attention_mask: given beside a cache"):
        model.generate(tokens, 1, how=Pass(cache=Cache()), attention_mask=torch.ones_like(tokens))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"new": 0}, "new = 0: give a whole number from 1"),
        ({"chunk": 0}, "chunk = 0: give a whole number from 1"),
        ({"temperature": -1.0}, r"temperature = -1.0: give 0 or more"),
    ],
)
def test_what_cannot_be_generated_is_said_in_a_sentence(settings, said):
    with pytest.raises(ValueError, match=said):
        build("pattern=causal").generate(text(), **({"new": 1} | settings))


def test_tokens_that_the_model_does_not_have_are_refused_by_their_range():
    model = build("pattern=causal")
    for wrong in (model.vocab_size, -1):
        tokens = text()
        tokens[0, 3] = wrong
        with pytest.raises(ValueError, match=rf"^tokens: from .* model has tokens 0 to {model.vocab_size - 1}\.$"):
            model.generate(tokens, 1)


@pytest.mark.slow
@torch.no_grad()
def test_a_certificate_of_decoding_finds_a_cache_that_is_wrong(monkeypatch):
    model, tokens, seen = build("pattern=causal", "selector.k=8"), text(rows=1), []
    whole = model.run(tokens, Pass(observe=seen.append)).logits
    change, others = decoded(model, tokens, whole, seen)
    assert change < 1e-5 and others == 0
    extend = Cache.extend

    def stale(cache, name, *given, **options):
        found = extend(cache, name, *given, **options)
        return found.roll(1, 2) if name == "index" else found

    monkeypatch.setattr(Cache, "extend", stale)
    change, others = decoded(model, tokens, whole, seen)
    assert change > 1e-4 and others > 0


@torch.no_grad()
def test_an_indexer_of_blocks_has_a_certificate_of_decoding_too():
    model, tokens, seen = build("pattern=causal", "selector.k=8", *fitting("indexer", "block_mean")), text(rows=1), []
    whole = model.run(tokens, Pass(observe=seen.append)).logits
    change, others = decoded(model, tokens, whole, seen)
    assert change < 1e-5 and others == 0


@pytest.mark.parametrize(("error", "hidden"), [(CannotGoOn("within a block"), True), (NotImplementedError("x"), False)])
def test_the_certificate_leaves_decoding_out_where_an_indexer_cannot_go_on_and_nowhere_else(error, hidden, monkeypatch):
    model = build_model(compose(SMALL), 64)

    def refuse(*_):
        raise error

    monkeypatch.setattr(model, "run", refuse)
    given = model, torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, 64), []
    if hidden:
        assert decoded(*given) == (None, None)
    else:
        with pytest.raises(NotImplementedError):
            decoded(*given)
