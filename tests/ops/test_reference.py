"""The definition itself, against plain recomputation in float64 and Python."""

import math

import pytest
import torch

from dsa.ops import Hash, IndexFeatures, Selection, TrueAttention, Zone, reference
from dsa.ops.scores import hash32

CAUSAL = (Zone(first=None),)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + sum(shape)))


def features(batch=2, time=9, heads=3, dim=4):
    return IndexFeatures(draw(batch, 1, time, heads, dim), draw(batch, 1, time, dim), draw(batch, 1, time, heads))


def test_index_scores_are_the_formula():
    x = features()
    got = x.scores(slice(0, 9), slice(0, 9))
    for b, t, s in ((0, 8, 3), (1, 4, 4), (0, 2, 0)):
        heads = (
            max(0.0, float(x.queries[b, 0, t, j] @ x.keys[b, 0, s])) * float(x.weights[b, 0, t, j]) for j in range(3)
        )
        assert math.isclose(float(got[b, 0, t, s]), sum(heads), rel_tol=1e-12)


def test_attention_is_softmax_over_the_selected_keys_alone():
    q, k, v = draw(1, 2, 6, 4), draw(1, 2, 6, 4, seed=1), draw(1, 2, 6, 4, seed=2)
    chosen = [[0], [0, 1], [1], [0, 3], [1, 2, 4], [5]]
    positions = torch.full((1, 1, 6, 3), -1)
    for t, keys in enumerate(chosen):
        positions[0, 0, t, : len(keys)] = torch.tensor(keys)
    out, logsumexp = reference.attend(q, k, v, Selection(positions, torch.tensor([[[len(c) for c in chosen]]])))
    for t, keys in enumerate(chosen):
        for h in range(2):
            logits = torch.stack([q[0, h, t] @ k[0, h, s] / 2 for s in keys])
            torch.testing.assert_close(out[0, h, t], logits.softmax(0) @ v[0, h, keys])
            torch.testing.assert_close(logsumexp[0, h, t], logits.logsumexp(0))


def test_a_sink_takes_probability_and_gives_no_value():
    q, k, v = draw(1, 1, 3, 4), draw(1, 1, 3, 4, seed=1), draw(1, 1, 3, 4, seed=2)
    selection = reference.select(Hash(0), CAUSAL, torch.full((1, 1, 3), 3))
    plain, lse = reference.attend(q, k, v, selection)
    sunk, with_sink = reference.attend(q, k, v, selection, torch.tensor([0.7], dtype=torch.float64))
    torch.testing.assert_close(sunk, plain * (lse - with_sink).exp()[..., None])


def test_rows_with_nothing_selected_are_zero_and_finite_gradients_too():
    q, k, v = (draw(1, 2, 4, 4, seed=s).requires_grad_() for s in range(3))
    limit = torch.tensor([[[0, 2, 0, 1]]])
    selection = reference.select(Hash(0), CAUSAL, limit)
    assert selection.counts.tolist() == [[[0, 2, 0, 1]]]
    out, logsumexp = reference.attend(q, k, v, selection)
    assert not out[:, :, [0, 2]].any()
    assert (logsumexp[:, :, [0, 2]] == -math.inf).all()
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


@pytest.mark.parametrize("selected", [True, False])
def test_the_indexer_loss_is_kl_and_its_gradient_softmax_minus_p_over_rows(selected):
    x = features(batch=1, heads=1)
    ones = IndexFeatures(torch.zeros(1, 1, 9, 1, 9).double(), torch.eye(9).double()[None, None], None, "none")
    index = draw(1, 1, 9, 9, seed=5).requires_grad_()  # queries against unit keys: the scores themselves
    ones = ones._replace(queries=index[:, :, :, None])
    q, k = draw(1, 2, 9, 4), draw(1, 2, 9, 4, seed=1)
    selection = reference.select(x, CAUSAL, torch.full((1, 1, 9), 3)) if selected else None
    scope = reference.to_mask(selection, 9)[0, 0] if selected else torch.ones(9, 9).tril().bool()
    lse = (q @ k.mT / 2).masked_fill(~scope, -math.inf).logsumexp(-1)
    loss = reference.indexer_loss(ones, TrueAttention(q, k, lse), selection)
    p = ((q @ k.mT / 2).masked_fill(~scope, -math.inf).softmax(-1).sum(1) / 2)[0]
    log_softmax = index[0, 0].masked_fill(~scope, -math.inf).log_softmax(-1)
    by_hand = sum(p[t, s] * (p[t, s].log() - log_softmax[t, s]) for t in range(9) for s in range(9) if scope[t, s]) / 9
    torch.testing.assert_close(loss, by_hand)
    (gradient,) = torch.autograd.grad(loss, index)
    torch.testing.assert_close(gradient[0, 0], ((log_softmax.exp() - p) / 9).masked_fill(~scope, 0.0))


def test_equal_scores_go_to_the_lower_position():
    flat = IndexFeatures(torch.zeros(1, 1, 8, 1, 2), torch.zeros(1, 1, 8, 2), None)
    assert reference.select(flat, CAUSAL, torch.full((1, 1, 8), 3)).positions[0, 0, 7].tolist() == [0, 1, 2]


def test_a_left_padded_row_selects_what_the_unpadded_row_does():
    x = features(batch=1, time=20)
    zones = (Zone(first=3, keep="all"), Zone(first=None, last=4, align=4, keep="selector"))
    plain = reference.select(x, zones, torch.full((1, 1, 20), 6))
    pad = [torch.cat([part.new_zeros(part[:, :, :5].shape), part], 2) for part in x[:3]]
    padded = reference.select(IndexFeatures(*pad), zones, torch.full((1, 1, 25), 6), first=torch.tensor([5]))
    assert not padded.counts[..., :5].any()
    shifted = torch.where(plain.positions >= 0, plain.positions + 5, -1)
    assert torch.equal(padded.positions[:, :, 5:], shifted)


def test_an_offset_continues_where_the_earlier_queries_stopped():
    x = features(batch=1, time=20)
    whole = reference.select(x, CAUSAL, torch.full((1, 1, 20), 6))
    later = x._replace(queries=x.queries[:, :, 12:], weights=x.weights[:, :, 12:])
    part = reference.select(later, CAUSAL, torch.full((1, 1, 8), 6), offset=12)
    assert torch.equal(part.positions, whole.positions[:, :, 12:])


def test_blocks_compete_whole_and_the_query_keeps_its_own_unfinished_block():
    keys = torch.tensor([1.0, 5.0, 3.0])  # scores of blocks 0, 1, 2 of 4 tokens
    x = IndexFeatures(torch.ones(1, 1, 14, 1, 1), keys.view(1, 1, 3, 1), None, unit=4)
    selection = reference.select(x, CAUSAL, torch.full((1, 1, 14), 7))
    assert selection.positions[0, 0, 13][:6].tolist() == [4, 5, 6, 7, 12, 13]
    assert selection.positions[0, 0, 6][:7].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_score_that_is_not_a_number_is_reported():
    x = features(time=6)
    x.keys[1, 0, 2, 0] = math.nan
    with pytest.raises(FloatingPointError, match="NaN, the first for query 2"):
        reference.select(x, CAUSAL, torch.full((2, 1, 6), 3))


def test_minus_infinity_is_a_score_like_any_other_but_the_last():
    x = IndexFeatures(
        torch.ones(1, 1, 4, 1, 1), torch.tensor([-math.inf, 1.0, -math.inf, 0.0]).view(1, 1, 4, 1), None, "none"
    )
    assert reference.select(x, CAUSAL, torch.full((1, 1, 4), 2)).positions[0, 0, 3].tolist() == [1, 3]
    assert reference.select(x, CAUSAL, torch.full((1, 1, 4), 3)).positions[0, 0, 3].tolist() == [0, 1, 3]


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


def test_budgets_that_trim_drop_the_lowest_scores_over_all_zones():
    x = IndexFeatures(torch.ones(1, 1, 8, 1, 1), torch.tensor([5.0, 1, 4, 2, 3, 0, 9, 7]).view(1, 1, 8, 1), None)
    zones = (Zone(first=1, keep="all"), Zone(first=4, last=2, keep=2), Zone(first=None, last=5, keep=2))
    selection = reference.select(x, zones, torch.full((1, 1, 8), 6), trim=lambda rows: rows.forced + 2)
    assert selection.positions[0, 0, 7].tolist()[:4] == [0, 2, 6, 7]
    assert int(selection.counts[0, 0, 7]) == 4
