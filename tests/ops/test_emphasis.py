"""What counts more in an indexer loss: rows by their weights, keys by the gradient that reaches their probability."""

import pytest
import torch
from contract.cases import attention, doubled, qkv, random_selection, randoms

from dsa import ops
from dsa.ops import Emphasis, IndexFeatures, blocked, reference
from dsa.ops.blocked import tiles

BATCH, HEADS, KV_HEADS, TIME, DIM = 2, 4, 2, 37, 8


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2000)


def features(unit=1):
    shapes = (BATCH, 1, TIME, 2, 4), (BATCH, 1, TIME // unit, 4), (BATCH, 1, TIME, 2)
    return IndexFeatures(*(randoms(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)), unit=unit)


def target(selection=None, groups=1, rows=True, keys=True):
    q, k, v = qkv(BATCH, HEADS, TIME, TIME, DIM, kv_heads=KV_HEADS)
    weights = randoms(BATCH, TIME).abs() * (randoms(BATCH, TIME, seed=1) > 0) if rows else None
    upstream, values = (randoms(*q.shape, seed=2), v.detach()) if keys else (None, None)
    return attention(q, k, selection, groups).emphasised(Emphasis(weights, upstream, values))


def learned(loss, own):
    inputs = [x for x in own[:3] if x is not None]
    return loss, *torch.autograd.grad(loss, inputs, retain_graph=True)  # losses of several share a graph


@pytest.mark.parametrize("unit", [1, 3])
@pytest.mark.parametrize("chosen", [0, 1])
@pytest.mark.parametrize(("rows", "keys"), [(True, False), (False, True), (True, True)])
def test_blocks_and_whoever_serves_give_what_the_definition_gives(unit, chosen, rows, keys):
    selection = random_selection(BATCH, 1, TIME, TIME, 30) if chosen else None
    own, what = features(unit), target(selection, 1, rows, keys)
    exact, wide = doubled(own), doubled(what)
    wanted = learned(reference.indexer_loss(exact, wide, selection), exact)
    assert wanted[0] > 0
    losses = [blocked.indexer_loss(own, what, selection), ops.indexer_loss(own, what, selection, backend="cpu")]
    losses += [] if chosen else ops.indexer_losses([own, own], what, backend="auto")
    for loss in losses:
        for got, exactly in zip(learned(loss, own), wanted, strict=True):
            torch.testing.assert_close(got.double(), exactly, rtol=1e-4, atol=1e-6)


def test_a_row_counts_by_its_weight_and_one_of_weight_0_not_at_all():
    own, what = features(), target(keys=False)
    plain = what._replace(emphasis=None)
    one = torch.eye(TIME)[:, None].expand(-1, BATCH, -1)
    alone = torch.stack([reference.indexer_loss(own, plain.emphasised(Emphasis(rows=row)), None) for row in one])
    torch.testing.assert_close(alone.mean(), reference.indexer_loss(own, plain, None))
    weights = torch.arange(TIME).float() % 5
    said = reference.indexer_loss(own, plain.emphasised(Emphasis(rows=weights.expand(BATCH, -1))), None)
    torch.testing.assert_close(said, (alone * weights).sum() / weights.sum())


def test_a_key_counts_by_the_gradient_that_reaches_its_probability_head_by_head():
    own, what = features(), target(rows=False)
    plain, (_, upstream, values) = what._replace(emphasis=None), what.emphasis
    later = torch.ones(TIME, TIME, dtype=torch.bool).triu(1)
    p = torch.cat([plain.of_group(0)._replace(groups=HEADS).scores(slice(None), slice(None))]).masked_fill(later, 0)
    by_head = (p * (upstream @ values.repeat_interleave(2, 1).mT).abs()).sum(1, keepdim=True)
    torch.testing.assert_close(reference.indexer_loss(own, what, None), reference.indexer_loss(own, by_head, None))
    assert (reference.indexer_loss(own, what, None) - reference.indexer_loss(own, plain, None)).abs() > 1e-3


@pytest.mark.parametrize("backend", [reference, blocked])
def test_where_nothing_counts_nothing_is_learned(backend):
    own, what = features(), target(keys=False).emphasised(Emphasis(rows=torch.zeros(BATCH, TIME)))
    assert all(not x.any() for x in learned(backend.indexer_loss(own, what, None), own))
