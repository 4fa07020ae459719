"""Attention over compressed entries: a softmax under a mask, in every backend and in parts; what is learned of it, how
it is counted and measured, and what is refused."""

import pytest
import torch
from backbones.test_offset import whole_and_parts
from conftest import SMALL, fitting

from dsa import build_model, compose
from dsa.backbones import Cache, Pass
from dsa.backbones.entries import Entries
from dsa.build import build_data
from dsa.judging.cost import flops
from dsa.judging.probe import probe
from dsa.ops import Recency, Selection, TrueAttention, select
from dsa.ops.cost import attention_flops
from dsa.ops.in_units import InUnits
from dsa.ops.zones import Zone
from dsa.training.objective import language_model_loss
from dsa.training.rehearsal import rehearse

WINDOW, STRIDE = 8, 4
CSA = ["model.kv=csa", f"model.kv_window={WINDOW}", "pattern=causal", *fitting("indexer", "deepseek_v4_csa")]
K = ["selector.k=16"]


def build(*overrides):
    """A small model with weights large enough for the choice to matter."""
    model = build_model(compose([*SMALL, *CSA, *overrides]), 64).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for group in model.groups().values() for p in group):  # the backbone's first
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=generator))
    return model


@pytest.fixture
def tokens():
    return torch.randint(64, (2, 62), generator=torch.Generator().manual_seed(0))


def read_mask(time, entries, window, chosen=None):
    """Which of [tokens | entries] each query sees, in so many words."""
    t = torch.arange(time)[:, None]
    near = (torch.arange(time) <= t) & (torch.arange(time) > t - window)
    far = ((torch.arange(entries) + 1) * STRIDE <= t + 1).expand(1, 1, -1, -1)
    far = far if chosen is None else far & chosen
    return torch.cat([near.expand(*far.shape[:3], -1), far], -1)


def units_in(selection, entries):
    """The entries whose tokens a selection has, every one of them."""
    mask = torch.zeros(*selection.counts.shape, entries, dtype=torch.bool)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in selection.counts.shape)):
        kept = set(selection.positions[tuple(place)].tolist())
        mask[tuple(place)] = torch.tensor([{*range(u * STRIDE, (u + 1) * STRIDE)} <= kept for u in range(entries)])
    return mask


@pytest.mark.parametrize("ops", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("sink", [True, False], ids=["sink", "no sink"])
@pytest.mark.parametrize("k", [None, 16], ids=["dense", "chosen"])
@pytest.mark.parametrize("time", [3, 30, 41])
def test_attention_is_a_softmax_under_a_mask(ops, sink, k, time):
    torch.manual_seed(0)
    number = time // STRIDE
    q, near, far, logit = (
        torch.randn(2, 3, time, 8),
        torch.randn(2, 1, time, 8),
        torch.randn(2, 1, number, 8),
        [0.3] * 3,
    )
    given = [x.requires_grad_() for x in (q, near, far, torch.tensor(logit))]
    selection = None
    if k is not None:
        limit = torch.full((2, 1, time), k)
        selection = select(InUnits(Recency(), STRIDE), (Zone(None),), limit)
    entries = Entries(near, far, 0, time, STRIDE, WINDOW, given[3] if sink else None, ops)
    out, logsumexp = entries.attend(q, selection)

    chosen = None if selection is None else units_in(selection, number)
    mask = read_mask(time, number, WINDOW, chosen)
    keys = torch.cat([near, far], 2)
    logits = (q @ keys.mT * 8**-0.5).masked_fill(~mask, -torch.inf)
    if sink:
        logits = torch.cat([logits, given[3][None, :, None, None].expand(2, -1, time, 1)], -1)
    expected = logits.softmax(-1)[..., : keys.shape[2]] @ keys
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(logsumexp, logits.logsumexp(-1))
    weight = torch.randn_like(out)
    wanted = torch.autograd.grad((expected * weight).sum(), given, allow_unused=True)
    got = torch.autograd.grad((out * weight).sum(), given, allow_unused=True)
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ops", ["reference", "blocked", "cpu"])
def test_a_budget_of_the_whole_length_equals_dense_attention_and_one_entry_less_does_not(tokens, ops):
    model = build("selector.k=64", f"ops={ops}")
    dense, _ = model.run(tokens, Pass(sparse=False))
    torch.testing.assert_close(model(tokens), dense)
    for router in model.routers:
        router.selector.k = 56  # fourteen of the fifteen entries that the last queries see
    almost = model(tokens)
    torch.testing.assert_close(almost[:, :59], dense[:, :59])
    assert (almost[:, 59:] - dense[:, 59:]).abs().amax(-1).min() > 1e-4


def test_backends_equal_each_other(tokens):
    found = []
    for ops in ("reference", "blocked", "cpu"):
        model = build(*K, f"ops={ops}")
        logits, losses = model.run(tokens, Pass(teach=True))
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        found.append((logits, losses["indexer"], {name: p.grad for name, p in model.named_parameters()}))
    for logits, loss, gradients in found[1:]:
        torch.testing.assert_close(logits, found[0][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(loss, found[0][1])
        for name, gradient in gradients.items():
            assert gradient is not None and gradient.any(), name
            wanted = found[0][2][name]
            torch.testing.assert_close(gradient, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=1e-3)


def test_a_query_reads_its_budget_in_whole_entries_and_its_window_beside(tokens):
    seen = []
    build("selector.k=18").run(tokens, Pass(observe=seen.append))
    read = seen[0].entries.read(seen[0].selection)
    t = torch.arange(62)
    entries = ((t + 1) // STRIDE).clamp(max=4)
    assert torch.equal(read.counts[0, 0].long(), (t + 1).clamp(max=WINDOW) + entries)
    far = (read.positions >= 62).sum(-1)
    assert torch.equal(far[0, 0], entries)
    assert torch.equal(seen[0].selection.counts[0, 0].long(), entries * STRIDE + (t + 1) % STRIDE)


def divergence(wanted, scores, scope):
    """KL of what is wanted, normalised in scope, to the softmax of the scores; the mean over rows that have some."""
    wanted = wanted.masked_fill(~scope, 0.0)
    rows = wanted.sum(-1) > 0
    p = (wanted / wanted.sum(-1, keepdim=True))[rows]
    given = scores.masked_fill(~scope, -torch.inf)[rows].log_softmax(-1)
    return (torch.special.xlogy(p, p) - torch.where(p > 0, p * given, 0.0)).sum(-1).mean()


def probabilities(q, entries, mask):
    """Of the entries, summed over heads."""
    logits = (q @ entries.keys.mT * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
    logits = torch.cat([logits, entries.sink[None, :, None, None].expand(*logits.shape[:3], 1)], -1)
    return logits.softmax(-1)[..., entries.near.shape[2] : -1].sum(1, keepdim=True)


@torch.no_grad()
def test_an_indexer_learns_the_probability_of_entries_summed_over_heads(tokens):
    model, seen, watched = build(*K), [], []
    losses = model.run(tokens, Pass(teach=True, observe=seen.append)).losses
    number = 62 // STRIDE
    wanted = []
    for layer in seen:
        scope = units_in(layer.selection, number)
        p = probabilities(layer.queries, layer.entries, read_mask(62, number, WINDOW, scope))
        wanted.append(divergence(p, layer.features.scores(slice(0, 62), slice(0, number)), scope))
    torch.testing.assert_close(losses["indexer"], torch.stack(wanted).mean())

    from dsa.backbones.router import attention_of
    from dsa.ops import indexer_losses

    model.run(tokens, Pass(sparse=False, watch=watched.append))
    layer, inputs = seen[0], watched[0]  # the first layer's inputs are the same in both
    every = read_mask(62, number, WINDOW)
    p = probabilities(inputs.queries, layer.entries, every)
    scope = every[..., 62:].expand_as(p)
    expected = divergence(p, layer.features.scores(slice(0, 62), slice(0, number)), scope)
    (loss,) = indexer_losses([layer.features], attention_of(inputs, "auto"))
    torch.testing.assert_close(loss, expected)


def recalled(model, tokens):
    """Share of the entries of highest attention that the first layer chose, where it could not choose all."""
    seen = []
    model.run(tokens, Pass(observe=seen.append))
    layer, number = seen[0], 62 // STRIDE
    mine = units_in(layer.selection, number)
    p = probabilities(layer.queries, layer.entries, read_mask(62, number, WINDOW))
    best = torch.zeros_like(mine).scatter(-1, p.topk(4).indices, True)
    left_out = (torch.arange(62) + 1) // STRIDE > 4
    return (mine & best)[:, :, left_out].sum().item() / best[:, :, left_out].sum().item()


def test_units_cost_what_as_many_keys_would():
    attention = TrueAttention(torch.randn(1, 2, 40, 8), torch.randn(1, 1, 10, 8), torch.zeros(1, 2, 40))
    pairs = sum((t + 1) // STRIDE for t in range(40))
    assert InUnits(attention, STRIDE).cost((Zone(None),), 40) == pytest.approx((2 * 8 + 2) * 2 * pairs)


@torch.no_grad()
def test_what_is_counted_and_measured_is_what_is_read(tokens):
    model = build(*K)
    pairs = int(read_mask(62, 62 // STRIDE, WINDOW).sum())
    layers = probe(model, tokens)
    read = pairs - sum(max((t + 1) // STRIDE - 4, 0) for t in range(62))
    found = flops(model, 62, layers[0].density)
    dense = len(model.sites) * attention_flops(2, 16, pairs)
    assert found["dense_attention"] == dense
    assert found["sparse_attention"] == pytest.approx(dense * read / pairs)
    assert layers[0].mean_k == pytest.approx(sum(min((t + 1) // STRIDE, 4) * 4 + (t + 1) % 4 for t in range(62)) / 62)
    for layer in layers:
        assert 0 < layer.mass <= layer.oracle_mass < 1
    assert layers[0].recall == pytest.approx(recalled(model, tokens))
    oracle = probe(build("selector=oracle", *K), tokens)
    assert oracle[0].recall == 1.0 and oracle[0].mass == pytest.approx(oracle[0].oracle_mass)
    assert oracle[0].mass == pytest.approx(layers[0].oracle_mass), "the first layer's attention is the same"
    dense_layers = probe(build("selector=dense"), tokens)
    assert dense_layers[0].density == 1.0 and dense_layers[0].mass > oracle[0].mass


@pytest.mark.parametrize(
    ("control", "cuts"),
    [
        *(("topk", cuts) for cuts in ([32], list(range(1, 62)))),
        *((name, [7, 8, 30, 33]) for name in ("oracle", "random", "window", "sink_window", "adaptive_position")),
    ],
)
def test_a_text_in_parts_equals_the_whole(tokens, control, cuts):
    small = {"adaptive_position": ["selector.min_k=4", "selector.max_k=24", "selector.target_mean=12"]}
    whole, parts = whole_and_parts(build(f"selector={control}", *small.get(control, K)), tokens, cuts)
    torch.testing.assert_close(parts[0], whole[0], atol=1e-4, rtol=1e-4)
    assert parts[1] == whole[1]


@torch.no_grad()
def test_a_dense_text_in_parts_equals_the_whole_and_the_cache_keeps_a_window_and_entries(tokens):
    model = build(*K)
    whole = model.run(tokens, Pass(sparse=False)).logits
    how = Pass(sparse=False, cache=Cache())
    parts = torch.cat([model.run(part, how).logits for part in tokens.tensor_split([5, 6, 40], 1)], 1)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert how.cache.kept["near", 0].shape[1] == WINDOW - 1
    assert how.cache.used["entry", 0] == 62 // STRIDE


@pytest.mark.slow
@torch.no_grad()
def test_generated_tokens_are_those_of_whole_passes_in_any_chunks(tokens):
    model, wanted = build(*K), tokens[:, :18]
    for _ in range(6):
        wanted = torch.cat([wanted, model(wanted)[:, -1:].argmax(-1)], 1)
    for chunk in (None, 1, 7):
        assert model.generate(tokens[:, :18], 6, chunk=chunk).equal(wanted)


def test_recomputed_blocks_and_bfloat16_give_the_same(tokens):
    how, gradients = Pass(teach=True), []
    for checkpointing in ("false", "true"):
        model = build(*K, f"memory.checkpoint={checkpointing}").train()
        logits, losses = model.run(tokens, how)
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.run(tokens, how).losses["indexer"].isfinite()
        rounded = model.run(tokens, Pass(sparse=False)).logits.float()
    dense = model.run(tokens, Pass(sparse=False)).logits
    assert (rounded - dense).std() < 0.05 * dense.std()


@pytest.mark.parametrize("objective", ["asked_kl", "gradient_kl"])
@pytest.mark.parametrize("sparse", [True, False])
def test_what_counts_more_is_found_for_entries_too(tokens, objective, sparse):
    from dsa.data.batch import Batch

    model, own = build(*K), compose([f"objective={objective}"]).objective.make()
    emphasis = own.emphasis(model, Batch(tokens, tokens.roll(-1, 1)), Pass(sparse=sparse, teach=sparse))
    emphasised = model.run(tokens, Pass(teach=True, emphasis=emphasis)).losses["indexer"]
    assert emphasised.isfinite() and emphasised != model.run(tokens, Pass(teach=True)).losses["indexer"]


def test_layers_may_share_what_they_choose(tokens):
    seen = []
    build(*K, "index_every=2").run(tokens, Pass(teach=True, observe=seen.append))
    assert torch.equal(seen[0].selection.positions, seen[1].selection.positions)


def test_sinks_and_places_begin_at_0_as_published():
    model = build_model(compose([*SMALL, *CSA]), 64)
    begun = {name: value for name, value in model.named_parameters() if name.startswith("blocks")}
    zero = {name for name, value in begun.items() if not value.any()}
    assert zero == {f"blocks.{n}.attention.{name}" for n in (0, 1) for name in ("sink", "compressor.place")}


def test_a_model_of_tokens_is_named_and_drawn_as_if_there_were_no_entries():
    spec = compose(["model.kv_stride=8"])
    identity = spec.model.cls.identity(spec.model.node)
    assert not [name for name in identity if name.startswith("kv")] and "d_model" in identity
    csa = compose(["model.kv=csa", "model.kv_stride=8"])
    assert csa.model.cls.identity(csa.model.node)["kv_stride"] == 8


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.kv=all"], "model.kv = all: give token or csa"),
        (["model.kv_stride=1"], "model.kv_stride = 1: give a whole number from 2"),
        (["model.kv_window=3"], "model.kv_window = 3: give a whole number from 4"),
        (["model.kv_rotary_dim=18"], "model.kv_rotary_dim = 18: more than model.d_model / model.heads = 16"),
        (["model.kv_rotary_dim=3"], "model.kv_rotary_dim = 3"),
        (["model.kv=token", "model.kv_window=2"], "model.kv_window = 2"),
        (["indexer=h1d8"], "indexer.unit = 1: with model.kv=csa keys are entries of model.kv_stride"),
        (["indexer.unit=8"], "indexer.unit = 8"),
        (
            ["indexer.unit=4", "model.kv_stride=8"],
            "indexer.unit = 4: with model.kv=csa keys are entries of model.kv_stride = 8",
        ),
        (
            ["indexer.unit=4", "pattern=local_global"],
            "pattern: with model.kv=csa every query chooses among all entries",
        ),
        (["indexer.unit=4", "pattern=learned"], "pattern: with model.kv=csa"),
        (["pattern=strided", "selector=window"], "pattern: with model.kv=csa"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(overrides, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        build_model(compose([*SMALL, *CSA[:3], "indexer=block_mean", *overrides]), 64)


@pytest.mark.parametrize(("selector", "unit"), [("topk", "indexer.unit"), ("oracle", "model.kv_stride")])
def test_a_budget_below_an_entry_is_refused_and_one_of_an_entry_is_taken(selector, unit):
    spec = compose([*SMALL, *CSA, f"selector={selector}", "selector.k=3"])
    with pytest.raises(ValueError, match=rf"no room for a block of 4 tokens\. .* or a smaller {unit}\."):
        rehearse(spec, build_data(spec))
    spec = compose([*SMALL, *CSA, f"selector={selector}", "selector.k=4"])
    rehearse(spec, build_data(spec))


def test_indices_of_entries_are_neither_written_nor_read(tokens, tmp_path):
    import dsa

    model = build(*K)
    with pytest.raises(ValueError, match="compressed entries"):
        dsa.dump_indices(model, tokens[:1], tmp_path / "x.npy")
    positions = torch.zeros(2, 1, 62, 1, dtype=torch.int32)
    replay = {0: Selection(positions, torch.ones(2, 1, 62, dtype=torch.int32))}
    with pytest.raises(ValueError, match="replay: this model attends to compressed entries"):
        model.run(tokens, Pass(replay=replay))
