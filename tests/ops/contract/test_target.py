"""What attending hands on to the indexer loss: the same target, loss and gradients from every backend."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from contract.cases import CAUSAL, doubled
from dsa import ops
from dsa.ops import IndexFeatures, Selection, TrueAttention


def made_up(seed=0, groups=1, length=50):
    torch.manual_seed(seed)
    q, k, v = (torch.randn(2, 4, length, 8, requires_grad=True) for _ in range(3))
    shapes = (2, groups, length, 2, 4), (2, 1, length, 4), (2, groups, length, 2)
    return (q, k, v), IndexFeatures(*(torch.randn(s, requires_grad=True) for s in shapes))


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("groups", "limit"), [(1, 9), (2, 9), (1, 50)])
def test_the_loss_by_the_target_is_that_of_the_attention(backend, tiles, groups, limit, many):
    (q, k, v), features = made_up(groups=groups)
    selection = ops.select(features, CAUSAL, torch.full((2, 1, 50), limit))
    with tiles(many):
        out, target = ops.attend_with_target(q, k, v, selection, groups, backend=backend.name)
        alone, logsumexp = ops.attend(q, k, v, selection, backend=backend.name)
    assert torch.equal(out, alone)
    assert torch.equal(target.logsumexp, logsumexp)
    assert not any(x.requires_grad for x in target[:3])
    loss = ops.indexer_loss(features, target, selection, backend=backend.name)
    plain = TrueAttention(q.detach(), k.detach(), logsumexp, groups)
    wanted = ops.indexer_loss(features, plain, selection, backend="reference")
    torch.testing.assert_close(loss, wanted)
    for got, want in zip(*(torch.autograd.grad(x, features[:3]) for x in (loss, wanted)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_a_target_of_another_selection_is_refused(backend):
    (q, k, v), features = made_up()
    selection = ops.select(features, CAUSAL, torch.full((2, 1, 50), 9))
    _, target = ops.attend_with_target(q, k, v, selection, backend="cpu")
    other = Selection(*(x.clone() for x in selection))
    for chosen in (other, None):
        with pytest.raises(ValueError, match="mass of another selection"):
            backend.indexer_loss(features, target, chosen)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_target_of_another_shape_is_refused(backend, explicit):
    (q, k, _), features = made_up()
    logsumexp = ops.dense_logsumexp(q, k)
    target = torch.rand(2, 1, 50, 49) if explicit else TrueAttention(q.detach(), k.detach()[:, :, :49], logsumexp)
    with pytest.raises(ValueError, match=r"\(2, 50, 49\), the index features \(2, 50, 50\)"):
        backend.indexer_loss(features, target, None)


@pytest.mark.parametrize("time", [0, 1])
def test_the_loss_over_all_keys_of_few_queries(backend, time):
    (q, k, _), features = made_up()
    features = features._replace(queries=features.queries[:, :, :time], weights=features.weights[:, :, :time])
    q = q[:, :, 50 - time :].detach()
    target = TrueAttention(q, k.detach(), ops.dense_logsumexp(q, k, backend="reference"))
    wanted = ops.indexer_loss(doubled(features), doubled(target), None, backend="reference")
    loss = backend.indexer_loss(features, target, None)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-6)
    assert (loss == 0) == (time == 0)
    assert all(x.isfinite().all() for x in torch.autograd.grad(loss, features[:3]))


def test_a_whole_step_survives_checkpointing_and_two_forwards_before_one_backward(backend):
    def loss(tensors, features):
        selection = ops.select(features, CAUSAL, torch.full((2, 1, 50), 9), backend=backend.name)
        out, target = ops.attend_with_target(*tensors, selection, backend=backend.name)
        return out.square().sum() + ops.indexer_loss(features, target, selection, backend=backend.name)

    cases = [made_up(seed) for seed in (0, 1)]
    inputs = [[*tensors, *features[:3]] for tensors, features in cases]
    apart = [torch.autograd.grad(loss(*case), x) for case, x in zip(cases, inputs, strict=True)]
    together = torch.autograd.grad(loss(*cases[0]) + loss(*cases[1]), [*inputs[0], *inputs[1]])
    again = torch.autograd.grad(checkpoint(loss, *cases[0], use_reentrant=False), inputs[0])
    for a, b in zip([*apart[0], *apart[1], *apart[0]], [*together, *again], strict=True):
        torch.testing.assert_close(a, b)
