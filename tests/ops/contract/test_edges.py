"""What lies at the edge: numbers that are none, positions that are none, empty rows and batches."""

import math

import pytest
import torch

from contract.cases import CAUSAL, attention, qkv, random_selection, randoms
from dsa import ops
from dsa.ops import Hash, IndexFeatures, Selection, Zone, reference


@pytest.mark.parametrize("broken", ["query", "key", "value"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_a_number_reaches_the_queries_that_selected_it_and_no_others(backend, broken, number):
    q, k, v = (x.detach() for x in qkv(1, 4, 60, 60, 8, kv_heads=2))
    {"query": q, "key": k, "value": v}[broken][:, 1, 20] = number
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    selection = random_selection(1, 2, 60, 60, 9)
    chosen = reference.to_mask(selection, 60).repeat_interleave(2, 1)
    hit = torch.zeros(1, 4, 60, dtype=torch.bool)
    if broken == "query":
        hit[:, 1, 20] = selection.counts[:, 0, 20] > 0
    else:
        hit[:, 2:] = chosen[:, 2:, :, 20]
    assert hit.any() and not hit.all()
    out, _ = backend.attend(q, k, v, selection)
    assert out[~hit].isfinite().all()
    assert not out[hit].isfinite().any(-1).any()
    grads = torch.autograd.grad(out, (q, k, v), randoms(*out.shape, seed=1))
    assert grads[0][~hit].isfinite().all()
    touched = (chosen & hit[..., None]).unflatten(1, (2, 2)).any(2).any(-2)
    assert touched.any() and not touched.all()
    for grad in grads[1:]:
        assert grad[~touched].isfinite().all()


def test_a_value_that_nobody_selected_may_be_anything(backend):
    q, k, v = (x.detach() for x in qkv(1, 2, 50, 50, 8))
    k[:, :, 30:], v[:, :, 30:] = math.nan, math.nan
    mask = reference.causal(50, 50) & (torch.arange(50) < 30)
    out, logsumexp = backend.attend(q, k, v, reference.from_mask(mask[None, None]))
    assert out.isfinite().all()
    assert logsumexp.isfinite().all()


@pytest.mark.parametrize("position", [20, 21, 1000])
def test_positions_beyond_the_keys_are_refused(backend, position):
    q, k, v = qkv(1, 2, 20, 20, 8)
    places = torch.full((1, 1, 20, 1), position, dtype=torch.int32)
    bad = Selection(places, torch.ones(1, 1, 20, dtype=torch.int32))
    features = IndexFeatures(randoms(1, 1, 20, 2, 4), randoms(1, 1, 20, 4))
    with pytest.raises(IndexError, match="outside the 20 keys"):
        backend.attend(q, k, v, bad)
    with pytest.raises(IndexError, match="outside the 20 keys"):
        backend.indexer_loss(features, attention(q, k), bad)


def test_a_selection_of_other_rows_or_queries_teaches_nobody(backend):
    """Kernels go by its shape: what is not there they would read from elsewhere."""
    q, k, _ = qkv(2, 4, 20, 20, 8)
    features = IndexFeatures(randoms(2, 1, 20, 2, 4), randoms(2, 1, 20, 4))
    target, fits = attention(q, k), random_selection(2, 1, 20, 20, 5)
    for bad in (random_selection(1, 1, 20, 20, 5), random_selection(2, 1, 12, 20, 5)):
        with pytest.raises(ValueError, match=r"indexer_loss: the selection has positions .* for 2 rows of 20 queries"):
            backend.indexer_loss(features, target, bad)
    uneven = fits._replace(counts=fits.counts[:, :, :12])
    with pytest.raises(ValueError, match="indexer_loss: the selection has positions"):
        backend.indexer_loss(features, target, uneven)
    for chosen in (fits, None):
        with pytest.raises(ValueError, match="the target's log-sum-exp has shape"):
            backend.indexer_loss(features, target._replace(logsumexp=target.logsumexp[:, :, :12]), chosen)


def test_sinks_may_lie_apart_in_memory(backend):
    q, k, v = qkv(1, 4, 30, 30, 8)
    sink, selection = randoms(4, 3)[:, 1], random_selection(1, 1, 30, 30, 6)
    assert not sink.is_contiguous()
    wanted, found = (backend.attend(q, k, v, selection, one) for one in (sink.contiguous(), sink))
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert backend.dense_logsumexp(q, k, sink).equal(backend.dense_logsumexp(q, k, sink.contiguous()))


@pytest.mark.parametrize(("batch", "time"), [(0, 12), (2, 0), (0, 0)])
def test_a_batch_without_rows_or_rows_without_queries_have_empty_answers(backend, batch, time):
    keys = time + 3
    q, k, v = qkv(batch, 4, time, keys, 8, kv_heads=2)
    features = IndexFeatures(randoms(batch, 1, time, 2, 4).requires_grad_(), randoms(batch, 1, keys, 4))
    for scorer in (features, Hash(1), attention(q, k)):
        for trim in (None, lambda rows: rows.forced + 2):
            for first in (None, torch.ones(batch, dtype=torch.long)):
                limit = torch.full((batch, 1, time), 4)
                selection = backend.select(scorer, (Zone(1, keep="all"), Zone(None, 2)), limit, trim, 3, first)
                assert selection.positions.shape[:3] == selection.counts.shape == (batch, 1, time)
    sink = torch.zeros(4, requires_grad=True)
    out, target = backend.attend_with_target(q, k, v, selection, 1, sink)
    assert out.shape == q.shape
    assert backend.dense_logsumexp(q, k).shape == (batch, 4, time)
    grads = torch.autograd.grad(out.sum(), (q, k, v, sink))
    assert all(grad.isfinite().all() for grad in grads)
    for chosen in (selection, None):
        loss = backend.indexer_loss(features, target if chosen is not None else attention(q, k), chosen)
        assert loss == 0
        assert torch.autograd.grad(loss, features.queries)[0].shape == features.queries.shape


def test_the_ops_that_keep_everything_take_a_batch_without_rows():
    q, k, v = qkv(0, 4, 12, 12, 8)
    selection = ops.select(Hash(1), CAUSAL, torch.full((0, 1, 12), 12))
    assert ops.attend(q, k, v, selection)[0].shape == q.shape
