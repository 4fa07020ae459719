"""The transformer: dense when it keeps everything, finite when it keeps nothing, two losses that do not mix."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.backbones import Pass
from dsa.training.objective import language_model_loss


@pytest.fixture
def tokens():
    return torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))


def build(*overrides):
    return build_model(compose([*SMALL, *overrides]), 64)


@pytest.mark.parametrize("ops", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("indexer", ["h2d16", "ultra_light"])
def test_a_budget_of_the_whole_length_equals_dense_attention(tokens, ops, indexer):
    model = build("pattern=causal", "selector.k=64", f"indexer={indexer}", f"ops={ops}")
    dense, _ = model.run(tokens, Pass(sparse=False))
    torch.testing.assert_close(model(tokens), dense)
    model.routers[0].selector.k = 63  # the last query drops one key: no longer the dense path
    almost = model(tokens)
    torch.testing.assert_close(almost[:, :63], dense[:, :63])
    assert not torch.equal(almost[:, 63], dense[:, 63])


def test_sparse_attention_with_fewer_keys_differs_from_dense(tokens):
    model = build("pattern=causal", "selector.k=4")
    dense, _ = model.run(tokens, Pass(sparse=False))
    assert (model(tokens) - dense).abs().max() > 1e-4


def test_the_language_model_loss_gives_indexers_no_gradient(tokens):
    model = build("selector.k=8")
    logits, _ = model.run(tokens, Pass(teach=True))
    language_model_loss(logits, tokens).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.groups()["indexers"])
    assert all(p.grad is not None and p.grad.any() for p in model.groups()["backbone"])


def test_the_indexers_loss_gives_the_backbone_no_gradient(tokens):
    model = build("selector.k=8")
    model.run(tokens, Pass(teach=True)).losses["indexer"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.groups()["backbone"])
    for router in model.routers:
        for name, parameter in router.indexer.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name


def test_the_backbone_starts_bit_identical_whatever_the_indexer():
    one, other, none = build("indexer=h1d8"), build("indexer=h4d64"), build("selector=window")
    for name, parameter in none.named_parameters():
        assert torch.equal(parameter, one.get_parameter(name)), name
        assert torch.equal(parameter, other.get_parameter(name)), name
    assert not torch.equal(build("seed=1").embedding.weight, one.embedding.weight)


def test_recomputing_blocks_in_the_backward_pass_changes_no_gradient(tokens):
    how = Pass(teach=True)
    gradients = []
    for checkpointing in ("false", "true"):
        model = build("selector.k=8", f"memory.checkpoint={checkpointing}").train()
        logits, losses = model.run(tokens, how)
        (language_model_loss(logits, tokens) + losses["indexer"]).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_two_forwards_before_one_backward_give_the_sum_of_their_gradients(tokens):
    model = build("selector.k=8")
    halves = tokens.chunk(2)

    def loss(part):
        logits, losses = model.run(part, Pass(teach=True))
        return language_model_loss(logits, part) + losses["indexer"]

    (loss(halves[0]) + loss(halves[1])).backward()
    together = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for half in halves:
        loss(half).backward()
    for a, b in zip(together, model.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


def test_autocast_changes_nothing_inside_the_ops():
    from dsa import ops
    from dsa.ops import IndexFeatures, Zone

    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 64, 16) for _ in range(3))
    features = IndexFeatures(torch.randn(1, 1, 64, 2, 8), torch.randn(1, 1, 64, 8), torch.randn(1, 1, 64, 2))

    def everything(backend):
        selection = ops.select(features, (Zone(first=None),), torch.full((1, 1, 64), 8), backend=backend)
        out, target = ops.attend_with_target(q, k, v, selection, backend=backend)
        loss = ops.indexer_loss(features, target, selection, backend=backend)
        return selection.positions, out, target.logsumexp, loss, ops.dense_logsumexp(q, k, backend=backend)

    for backend in ("reference", "blocked", "cpu"):
        plain = everything(backend)
        with torch.autocast("cpu", torch.bfloat16):
            under = everything(backend)
        for a, b in zip(plain, under, strict=True):
            assert torch.equal(a, b), backend


def test_autocast_leaves_index_scores_in_float32(tokens):
    seen = []
    model = build("selector.k=8")
    with torch.autocast("cpu", torch.bfloat16):
        model.run(tokens, Pass(observe=seen.append))
    assert seen[0].features.queries.dtype == torch.float32
    assert seen[0].queries.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.heads=3", "model.heads = 3"),
        ("model.d_model=6", "model.d_model / model.heads"),
        ("selector.k=0", "selector.k = 0: a query must keep at least one key"),
        ("selector.k=-3", "selector.k = -3"),
        ("indexer.dim=7", "indexer.dim = 7"),
        ("pattern.window=0", "pattern.window = 0"),
        ("pattern.budget=16", "pattern.budget = 16"),
        ("ops=cuda", "ops = cuda"),
    ],
)
def test_an_impossible_number_is_refused_with_the_settings_name(tokens, override, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        build(override)(tokens)


def test_the_profiler_sees_the_parts_of_the_attention(tokens):
    from torch.profiler import ProfilerActivity, profile

    model = build("selector.k=8")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model.run(tokens, Pass(teach=True))
    counts = {event.key: event.count for event in seen.key_averages()}
    for part in ("indexer", "select", "attend", "indexer_loss"):
        assert counts.get(f"dsa/{part}") == len(model.blocks), part


@pytest.mark.parametrize("short", [0, 20, 63])
def test_one_query_that_drops_a_key_makes_the_attention_sparse(tokens, short):
    model = build("pattern=causal", "selector.k=64")
    dense, _ = model.run(tokens, Pass(sparse=False))
    limit = torch.arange(1, 65).expand(2, 1, 64).clone()
    limit[1, 0, short] -= 1
    for router in model.routers:
        router.selector.limit = lambda context: limit
    difference = (model(tokens) - dense).abs().amax(-1)
    assert difference[1, short] > 1e-4
    assert difference[0].max() < 1e-4


def test_a_pattern_may_differ_from_group_to_group_of_heads(tokens):
    from dsa.ops import Zone
    from dsa.patterns import Pattern

    class NearAndFar(Pattern):
        """The first half of the heads among the nearest keys, the second among all."""

        budget = 6

        def zones(self):
            return (Zone(11),), (Zone(1, keep="all"), Zone(None, 2))

    seen = []
    model = build().train()
    for router in model.routers:
        router.pattern = NearAndFar()
    logits, losses = model.run(tokens, Pass(teach=True, observe=seen.append))
    (language_model_loss(logits, tokens) + losses["indexer"]).backward()
    positions = seen[0].selection.positions
    assert positions.shape[1] == 2
    last = positions[:, :, 63]
    assert int(last[:, 0].min()) >= 52 and torch.equal(last[:, 1, -2:], torch.tensor([[62, 63]] * 2).int())
    assert not torch.equal(last[:, 0], last[:, 1])
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    changed = tokens.clone()
    changed[:, 40:] = (tokens[:, 40:] + 1) % 64
    assert torch.equal(model(tokens)[:, :40], model(changed)[:, :40])
