"""Rows as a model has them: 32 heads in bf16, and on a GPU as many tokens as CONTRACT_LENGTH says."""

import os

import pytest
import torch

from contract.cases import CAUSAL, doubled, far, qkv, randoms, same, wholes
from dsa.ops import IndexFeatures, Selection, TrueAttention, Zone, blocked, reference
from dsa.ops.triton.launch import interpreted

LENGTH = int(os.environ.get("CONTRACT_LENGTH", "96"))
TAIL = 24  # queries that are compared with the definition, which holds every pair in float64
DIM, K = (128, LENGTH // 16) if LENGTH > 1000 else (16, 12)
SHAPES = [(LENGTH, 4), (LENGTH, 32), (LENGTH // 2 + 7, 4)][: 1 if interpreted() else None]
ZONES = (Zone(5, keep="all"), Zone(None, 6))


def indexed(make, time, seed=0):
    return IndexFeatures(make(1, 1, time, 4, DIM, seed=seed), make(1, 1, time, DIM, seed=seed + 1))


def tail_of(features):
    return features._replace(queries=features.queries[:, :, -TAIL:])


@pytest.mark.parametrize("rule", [CAUSAL, ZONES])
@pytest.mark.parametrize("time", sorted({time for time, _ in SHAPES}))
def test_the_last_of_many_queries_select_what_the_definition_says(backend, time, rule):
    features, limit = indexed(wholes, time), torch.full((1, 1, time), K)
    got = backend.select(features, rule, limit)
    wanted = reference.select(tail_of(features), rule, limit[..., -TAIL:], None, time - TAIL)
    assert same(Selection(got.positions[:, :, -TAIL:], got.counts[:, :, -TAIL:]), wanted)
    assert torch.equal(got.counts[0, 0], torch.arange(1, time + 1).clamp(max=K).to(got.counts))


@pytest.mark.parametrize(("time", "kv_heads"), SHAPES)
def test_the_last_of_many_queries_attend_in_bf16_and_send_back_what_the_definition_says(backend, time, kv_heads):
    if backend is reference:  # it computes in whatever format it is given
        return
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv(1, 32, time, time, DIM, kv_heads=kv_heads))
    selection = reference.select(indexed(wholes, time), ZONES, torch.full((1, 1, time), K))
    out, logsumexp = backend.attend(q, k, v, selection)
    upstream = torch.zeros(out.shape).to(out)
    upstream[:, :, -TAIL:] = randoms(1, 32, TAIL, DIM)
    grads = torch.autograd.grad(out, (q, k, v), upstream)
    exact = doubled(q[:, :, -TAIL:].detach()).requires_grad_(), *(doubled(x) for x in (k, v))
    last = Selection(selection.positions[:, :, -TAIL:], selection.counts[:, :, -TAIL:])
    wanted, wanted_logsumexp = reference.attend(*exact, last)
    assert far(out[:, :, -TAIL:], wanted) < 1e-2
    assert far(logsumexp[:, :, -TAIL:], wanted_logsumexp) < 1e-5
    grads = grads[0][:, :, -TAIL:], *grads[1:]
    for got, want in zip(grads, torch.autograd.grad(wanted, exact, upstream[:, :, -TAIL:].double()), strict=True):
        assert far(got, want) < 4e-2


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("time", "kv_heads"), SHAPES)
def test_an_indexer_learns_from_many_rows_what_plain_pytorch_says(backend, time, kv_heads, dense):
    if backend is reference:  # it computes in whatever format it is given
        return
    q, k, _ = (x.detach().bfloat16() for x in qkv(1, 32, time, time, DIM, kv_heads=kv_heads))
    features = indexed(randoms, time)
    features = features._replace(queries=features.queries.requires_grad_(), keys=features.keys.requires_grad_())
    selection = None if dense else blocked.select(features, ZONES, torch.full((1, 1, time), K))
    logsumexp = blocked.dense_logsumexp(q, k) if selection is None else blocked.attend(q, k, k, selection)[1]
    target = TrueAttention(q, k, logsumexp)
    losses = [ops.indexer_loss(features, target, selection) for ops in (backend, blocked)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for got, want in zip(*(torch.autograd.grad(loss, features[:2]) for loss in losses), strict=True):
        assert far(got, want) < 2e-3
