"""The same bits on every run at one thread, and gradients that survive being recomputed."""

import torch
from torch.utils.checkpoint import checkpoint

from contract.cases import CAUSAL, qkv, random_selection, randoms
from dsa.ops import IndexFeatures


def step(backend, length=100):
    q, k, v = qkv(1, 4, length, length, 20, kv_heads=2)
    features = IndexFeatures(
        *(randoms(*s).requires_grad_() for s in ((1, 1, length, 2, 4), (1, 1, length, 4), (1, 1, length, 2)))
    )
    selection = backend.select(features, CAUSAL, torch.full((1, 1, length), 20))
    out, target = backend.attend_with_target(q, k, v, selection)
    loss = backend.indexer_loss(features, target, selection)
    grads = torch.autograd.grad((out * randoms(*out.shape)).sum() + loss, [q, k, v, *features[:3]])
    return [selection.positions, out.detach(), target.logsumexp, loss.detach(), *grads]


def test_results_repeat_bit_for_bit_at_one_thread(backend):
    torch.set_num_threads(1)
    for a, b in zip(step(backend), step(backend), strict=True):
        assert torch.equal(a, b)


def test_gradients_survive_checkpointing_and_two_forwards_before_one_backward(backend):
    q, k, v = qkv(1, 2, 40, 40, 8)
    selection, other = random_selection(1, 1, 40, 40, 9), random_selection(1, 2, 40, 40, 20, seed=1)
    run = lambda s: backend.attend(q, k, v, s)[0].square().sum()
    plain = [torch.autograd.grad(run(s), (q, k, v)) for s in (selection, other)]
    together = torch.autograd.grad(run(selection) + run(other), (q, k, v))
    again = torch.autograd.grad(checkpoint(run, selection, use_reentrant=False), (q, k, v))
    for a, b, both, redone in zip(*plain, together, again, strict=True):
        torch.testing.assert_close(a + b, both)
        assert torch.equal(a, redone)
