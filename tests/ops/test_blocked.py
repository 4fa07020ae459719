"""The blocked backend against the definition."""

import itertools

import pytest
import torch

from dsa.ops import Hash, IndexFeatures, Recency, TrueAttention, Zone, blocked, reference
from dsa.ops.blocked import tiles

ZONES = {
    "causal": (Zone(first=None),),
    "local_global": (Zone(first=3, keep="all"), Zone(first=None, last=4)),
    "aligned": (Zone(first=7, align=4, keep=0.5),),
    "three": (Zone(first=2, keep="all"), Zone(first=9, last=3, keep=0.4), Zone(first=None, last=10, keep=3)),
    "forced": (Zone(first=4, keep="all"),),
    "strided": (Zone(first=0, keep="all"), Zone(first=None, last=3, step=3, keep=0.5)),
}


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 2000)


def whole(*shape, seed=0):
    """Small whole numbers: exact in any order of summation, and full of ties."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed + sum(shape))).float()


def scorer_of(kind, batch, groups, time, keys, block):
    if kind == "features":
        shape = (batch, groups, time, 2, 4), (batch, 1, keys // block, 4), (batch, groups, time, 2)
        return IndexFeatures(*(whole(*s) for s in shape), unit=block)
    if kind == "max":
        return scorer_of("features", batch, groups, time, keys, block)._replace(
            keys=whole(batch, 1, keys // block * block, 4), pool="max"
        )
    if kind == "attention":
        q, k = torch.randn(batch, 4, time, 8), torch.randn(batch, 4, keys, 8)
        return TrueAttention(q, k, reference.dense_logsumexp(q, k), groups)
    return Hash(3) if kind == "hash" else Recency()


KINDS = [("features", 1), ("features", 4), ("max", 4), ("attention", 1), ("hash", 1), ("recency", 1)]


@pytest.mark.parametrize(
    ("zones", "kind", "block"),
    [(zones, *kind) for zones in ZONES for kind in KINDS if not (zones == "strided" and kind[1] > 1)],
)
def test_selections_equal_the_reference(zones, kind, block):
    cases = itertools.product((1, 7, 50), (0, 5), (1, 2), (0, 1, 6, 100), (False, True), (False, True))
    for time, offset, groups, limit, padded, trims in cases:
        keys = time + offset
        if keys // block == 0 or (trims and block > 1):
            continue
        scorer = scorer_of(kind, 2, groups, time, keys, block)
        first = torch.tensor([0, keys // 3 // block * block]) if padded else None
        trim = (lambda rows: rows.forced + 2) if trims else None
        arguments = scorer, ZONES[zones], torch.full((2, 1, time), limit), trim, offset, first
        expected, got = reference.select(*arguments), blocked.select(*arguments)
        assert torch.equal(reference.to_mask(got, keys), reference.to_mask(expected, keys))
        assert torch.equal(got.counts, expected.counts)


def test_blocks_in_a_strided_zone_are_refused():
    scorer = scorer_of("features", 1, 1, 8, 8, 4)
    with pytest.raises(ValueError, match="units need contiguous zones"):
        blocked.select(scorer, ZONES["strided"], torch.full((1, 1, 8), 4))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("limit", [0, 5])
def test_attention_and_all_its_gradients_equal_the_reference(groups, sink, limit):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 60, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    extra = [torch.randn(4, dtype=torch.float64, requires_grad=True)] if sink else []
    scorer = scorer_of("features", 2, groups, 60, 60, 1)
    budget = torch.full((2, 1, 60), limit)
    budget[..., 30] = 0
    selection = reference.select(scorer, ZONES["local_global"], budget)
    upstream = torch.randn(2, 4, 60, 8, dtype=torch.float64)
    results = []
    for ops in (reference, blocked):
        out, logsumexp = ops.attend(q, k, v, selection, *extra)
        results.append([out, logsumexp, *torch.autograd.grad(out, [q, k, v, *extra], upstream)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_half_precision_inputs_are_computed_in_float32():
    q, k, v = (torch.randn(1, 2, 40, 16).bfloat16() for _ in range(3))
    selection = reference.select(Hash(1), ZONES["causal"], torch.full((1, 1, 40), 7))
    out, _ = blocked.attend(q, k, v, selection)
    exact, _ = reference.attend(q.double(), k.double(), v.double(), selection)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), exact, atol=0, rtol=2**-8)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("selected", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_the_indexer_loss_and_its_gradients_equal_the_reference(weighted, selected, explicit):
    torch.manual_seed(1)
    shapes = (2, 2, 60, 3, 4), (2, 1, 60, 4), (2, 2, 60, 3)
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes[: 3 if weighted else 2]]
    x = IndexFeatures(*leaves)
    q, k = torch.randn(2, 4, 60, 8).double(), torch.randn(2, 4, 60, 8).double()
    selection = reference.select(x, ZONES["local_global"], torch.full((2, 1, 60), 6)) if selected else None
    lse = reference.attend(q, k, k, selection)[1] if selected else reference.dense_logsumexp(q, k)
    target = torch.rand(2, 2, 60, 60).double() if explicit else TrueAttention(q, k, lse, 2)
    results = []
    for ops in (reference, blocked):
        loss = ops.indexer_loss(x, target, selection)
        results.append([loss, *torch.autograd.grad(2 * loss, leaves)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_patterns_of_forced_zones_compute_no_score(monkeypatch):
    monkeypatch.setattr(Hash, "scores", lambda *_: pytest.fail("a score was computed"))
    blocked.select(Hash(0), ZONES["forced"], torch.full((1, 1, 50), 5))


def test_keys_outside_the_zones_are_not_read():
    q, k, v = (torch.randn(1, 2, 200, 8) for _ in range(3))
    k[:, :, :60], v[:, :, :60] = torch.nan, torch.nan
    selection = blocked.select(Recency(), ZONES["forced"], torch.full((1, 1, 200), 5))
    out, _ = blocked.attend(q, k, v, selection)
    assert out[:, :, 100:].isfinite().all()
