"""Cost formulas against PyTorch's own counter on the reference, and against measured reasoning."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from dsa.ops import Hash, IndexFeatures, TrueAttention, Zone, cost, reference


def counted(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_dense_attention_costs_what_the_counter_counts_on_all_pairs():
    q, k, v = (torch.randn(1, 8, 64, 32, requires_grad=True) for _ in range(3))
    selection = reference.select(Hash(0), (Zone(first=None),), torch.full((1, 1, 64), 64))
    assert counted(lambda: reference.attend(q, k, v, selection)) == cost.attention_flops(8, 32, 64 * 64)
    out, _ = reference.attend(q, k, v, selection)
    assert counted(lambda: out.sum().backward()) == cost.attention_flops(8, 32, 64 * 64, backward=True)


def test_the_indexer_costs_what_the_counter_counts_plus_its_activations():
    from dsa import compose
    from dsa.ops import Rotation

    indexer = compose(["model=seed", "indexer=h2d32"]).indexer.make(d_model=256)
    x = torch.randn(1, 64, 256)
    features = indexer(x, Rotation(64, 1e4))
    projections = counted(lambda: indexer(x, Rotation(64, 1e4)))
    products = counted(lambda: features.scores(slice(0, 64), slice(0, 64)))
    pairs = cost.causal_pairs(64)
    assert indexer.projection_flops(64) == projections
    assert features.cost((Zone(first=None),), 64) == products * pairs / 64**2 + 3 * 2 * pairs


def test_the_indexer_loss_costs_what_the_counter_counts_plus_its_activations():
    torch.manual_seed(0)
    features = IndexFeatures(
        *(torch.randn(s).requires_grad_() for s in ((1, 1, 64, 2, 16), (1, 1, 64, 16), (1, 1, 64, 2)))
    )
    q, k = torch.randn(1, 8, 64, 32), torch.randn(1, 8, 64, 32)
    target = TrueAttention(q, k, reference.dense_logsumexp(q, k))
    loss = []
    products = counted(lambda: loss.append(reference.indexer_loss(features, target, None)))
    assert cost.indexer_loss_flops(2, 16, 8, 32, 64 * 64) == products + 3 * 2 * 64 * 64
    backward = counted(lambda: loss[0].backward())
    assert cost.indexer_loss_flops(2, 16, 8, 32, 64 * 64, backward=True) >= backward


def test_kept_pairs_are_counted_one_by_one():
    for length, k in ((1, 1), (10, 3), (10, 10), (10, 99)):
        assert cost.kept_pairs(length, k) == sum(min(k, t + 1) for t in range(length))
    assert cost.causal_pairs(10) == cost.kept_pairs(10, 10)
