"""The contract spelled out on small examples, against plain recomputation in Python."""

import math

import pytest
import torch

from contract.cases import CAUSAL, far, qkv, randoms, same
from dsa.ops import Hash, IndexFeatures, Selection, TrueAttention, Zone, reference
from dsa.ops.scores import hash32


def features(batch=2, time=9, heads=2, dim=4):
    return IndexFeatures(
        randoms(batch, 1, time, heads, dim), randoms(batch, 1, time, dim), randoms(batch, 1, time, heads)
    )


def of_scores(values, time, unit=1):
    """Features that give every query these scores, twice."""
    keys = torch.zeros(1, 1, len(values), 4)
    keys[0, 0, :, 0] = torch.tensor(values)
    return IndexFeatures(torch.ones(1, 1, time, 2, 4), keys, None, "none", unit=unit)


def test_index_scores_are_the_formula():
    x = IndexFeatures(*(part.double() for part in features()[:3]))
    got = x.scores(slice(0, 9), slice(0, 9))
    for b, t, s in ((0, 8, 3), (1, 4, 4), (0, 2, 0)):
        heads = (
            max(0.0, float(x.queries[b, 0, t, j] @ x.keys[b, 0, s])) * float(x.weights[b, 0, t, j]) for j in range(2)
        )
        assert math.isclose(float(got[b, 0, t, s]), sum(heads), rel_tol=1e-12)


def test_hash_scores_are_murmur_mixed_and_even():
    def mix(x):
        x ^= x >> 16
        x = x * 0x85EBCA6B % 2**32
        x ^= x >> 13
        x = x * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    state = 0x9E3779B9
    for part in (7, 0, 2, 3):
        state = mix(state ^ part)
    got = hash32(Hash(seed=7, layer=2, step=3).parts, torch.tensor([5]), torch.tensor([11]))
    assert int(got) == mix(mix((5 + state) % 2**32) ^ 11)
    values = Hash(1).scores(slice(0, 64), slice(0, 64)).flatten() / 2**24
    assert abs(float(values.mean()) - 0.5) < 0.02 and values.unique().numel() > 4090


def test_attention_is_softmax_over_the_selected_keys_alone(backend):
    q, k, v = (x.detach() for x in qkv(1, 2, 6, 6, 8))
    chosen = [[0], [0, 1], [1], [0, 3], [1, 2, 4], [5]]
    positions = torch.full((1, 1, 6, 3), -1)
    for t, keys in enumerate(chosen):
        positions[0, 0, t, : len(keys)] = torch.tensor(keys)
    out, logsumexp = backend.attend(q, k, v, Selection(positions, torch.tensor([[[len(c) for c in chosen]]])))
    for t, keys in enumerate(chosen):
        for h in range(2):
            logits = torch.stack([q[0, h, t] @ k[0, h, s] / 8**0.5 for s in keys])
            torch.testing.assert_close(out[0, h, t], logits.softmax(0) @ v[0, h, keys])
            torch.testing.assert_close(logsumexp[0, h, t], logits.logsumexp(0))


def test_a_sink_takes_probability_and_gives_no_value(backend):
    q, k, v = (x.detach() for x in qkv(1, 1, 3, 3, 8))
    selection = reference.select(Hash(0), CAUSAL, torch.full((1, 1, 3), 3))
    plain, lse = backend.attend(q, k, v, selection)
    sunk, with_sink = backend.attend(q, k, v, selection, torch.tensor([0.7]))
    torch.testing.assert_close(sunk, plain * (lse - with_sink).exp()[..., None])


@pytest.mark.parametrize("sink", [False, True])
def test_rows_with_nothing_selected_are_zero_and_finite_gradients_too(backend, sink):
    q, k, v = qkv(1, 2, 4, 4, 8)
    sinks = torch.tensor([0.2, -0.3], requires_grad=True) if sink else None
    selection = backend.select(Hash(0), CAUSAL, torch.tensor([[[0, 2, 0, 1]]]))
    assert selection.counts.tolist() == [[[0, 2, 0, 1]]]
    out, logsumexp = backend.attend(q, k, v, selection, sinks)
    assert not out[:, :, [0, 2]].any()
    empty = sinks[:, None].expand(2, 2) if sink else torch.full((2, 2), -math.inf)
    assert torch.equal(logsumexp[0, :, [0, 2]], empty)
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v, *([sinks] if sink else [])))
    x = IndexFeatures(*(part.requires_grad_() for part in features(1, 4)[:3]))
    loss = backend.indexer_loss(x, TrueAttention(q.detach(), k.detach(), logsumexp), selection)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, x[:3]))


@pytest.mark.parametrize("selected", [True, False])
def test_the_indexer_loss_is_kl_and_its_gradient_softmax_minus_p_over_rows(backend, selected):
    # Queries against unit keys: the first head's are the scores themselves, the second's are 0.
    index = randoms(6, 1, 4, 4, seed=5).requires_grad_()
    queries = torch.stack([index, torch.zeros_like(index)], -2)
    ones = IndexFeatures(queries, torch.eye(4).expand(6, 1, 4, 4), None, "none")
    q, k = (x.detach() for x in qkv(6, 2, 4, 4, 8)[:2])
    selection = reference.select(features(6, 4), CAUSAL, torch.full((6, 1, 4), 2)) if selected else None
    scope = reference.to_mask(selection, 4) if selected else torch.ones(6, 1, 4, 4).tril().bool()
    logits = (q @ k.mT * 8**-0.5).masked_fill(~scope, -math.inf)
    loss = backend.indexer_loss(ones, TrueAttention(q, k, logits.logsumexp(-1)), selection)
    p = logits.softmax(-1).sum(1, keepdim=True) / 2
    log_softmax = index.masked_fill(~scope, -math.inf).log_softmax(-1)
    by_hand = [p[place] * (p[place].log() - log_softmax[place]) for place in map(tuple, scope.nonzero())]
    torch.testing.assert_close(loss, sum(by_hand) / 24)
    (gradient,) = torch.autograd.grad(loss, index)
    wanted = ((log_softmax.exp() - p) / 24).masked_fill(~scope, 0.0)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)


def test_equal_scores_go_to_the_lower_position(backend):
    assert backend.select(of_scores([0.0] * 8, 8), CAUSAL, torch.full((1, 1, 8), 3)).positions[0, 0, 7].tolist() == [
        0,
        1,
        2,
    ]


def test_a_left_padded_row_selects_what_the_unpadded_row_does(backend):
    x = features(batch=1, time=20)
    zones = (Zone(first=3, keep="all"), Zone(first=None, last=4, align=4, keep="selector"))
    plain = backend.select(x, zones, torch.full((1, 1, 20), 6))
    pad = [torch.cat([part.new_zeros(part[:, :, :5].shape), part], 2) for part in x[:3]]
    padded = backend.select(IndexFeatures(*pad), zones, torch.full((1, 1, 25), 6), first=torch.tensor([5]))
    assert not padded.counts[..., :5].any()
    shifted = torch.where(plain.positions >= 0, plain.positions + 5, -1)
    assert torch.equal(padded.positions[:, :, 5:], shifted)


def test_units_compete_whole_and_the_query_keeps_its_own_unfinished_one(backend):
    selection = backend.select(of_scores([1.0, 5.0, 3.0], 14, unit=4), CAUSAL, torch.full((1, 1, 14), 7))
    assert selection.positions[0, 0, 13][:6].tolist() == [4, 5, 6, 7, 12, 13]
    assert selection.positions[0, 0, 6][:7].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_units_in_a_strided_zone_are_refused(backend):
    with pytest.raises(ValueError, match="units need contiguous zones"):
        backend.select(
            of_scores([1.0, 1.0], 8, unit=4), (Zone(0, keep="all"), Zone(None, 3, 3)), torch.full((1, 1, 8), 4)
        )


def test_a_score_that_is_not_a_number_is_reported(backend):
    keys = randoms(1, 1, 50, 4).index_fill(2, torch.tensor([20]), math.nan)
    with pytest.raises(FloatingPointError, match=r"are NaN, the first for query 20"):
        backend.select(IndexFeatures(randoms(1, 1, 50, 2, 4), keys), CAUSAL, torch.full((1, 1, 50), 4))


def test_a_score_of_the_future_that_is_not_a_number_is_no_concern_of_the_past(backend):
    keys = randoms(1, 1, 50, 4).index_fill(2, torch.arange(30, 50), math.nan)
    x = IndexFeatures(randoms(1, 1, 30, 2, 4), keys)
    assert int(backend.select(x, CAUSAL, torch.full((1, 1, 30), 4)).positions.max()) < 30


def test_infinite_scores_rank_first_and_last(backend):
    x = of_scores([{5: math.inf, 7: -math.inf}.get(s, 0.0) for s in range(40)], 40)
    got = backend.select(x, CAUSAL, torch.full((1, 1, 40), 8))
    assert 5 in got.positions[0, 0, 20]
    assert 7 not in got.positions[0, 0, 20]
    assert same(got, reference.select(x, CAUSAL, torch.full((1, 1, 40), 8)))


def test_minus_infinity_is_a_score_like_any_other_but_the_last(backend):
    x = of_scores([-math.inf, 1.0, -math.inf, 0.0], 4)
    assert backend.select(x, CAUSAL, torch.full((1, 1, 4), 2)).positions[0, 0, 3].tolist() == [1, 3]
    assert backend.select(x, CAUSAL, torch.full((1, 1, 4), 3)).positions[0, 0, 3].tolist() == [0, 1, 3]


def test_budgets_that_trim_drop_the_lowest_scores_over_all_zones(backend):
    x = of_scores([5.0, 1, 4, 2, 3, 0, 9, 7], 8)
    zones = (Zone(first=1, keep="all"), Zone(first=4, last=2, keep=2), Zone(first=None, last=5, keep=2))
    selection = backend.select(x, zones, torch.full((1, 1, 8), 6), lambda rows: rows.forced + 2)
    assert selection.positions[0, 0, 7].tolist()[:4] == [0, 2, 6, 7]
    assert int(selection.counts[0, 0, 7]) == 4


def test_half_precision_goes_in_and_comes_out_and_is_computed_in_single(backend):
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv(1, 2, 40, 40, 8))
    selection = reference.select(Hash(1), CAUSAL, torch.full((1, 1, 40), 7))
    out, _ = backend.attend(q, k, v, selection)
    wanted, _ = reference.attend(*(x.double() for x in (q, k, v)), selection)
    grads = torch.autograd.grad(out.float().sum(), (q, k, v))
    assert {out.dtype, *(g.dtype for g in grads)} == {torch.bfloat16}
    if backend is not reference:  # which computes in whatever it is given
        assert torch.equal(out, backend.attend(*(x.float() for x in (q, k, v)), selection)[0].bfloat16())
        torch.testing.assert_close(out.double(), wanted, atol=0, rtol=2**-8)
    assert far(out, wanted) < 2e-2
