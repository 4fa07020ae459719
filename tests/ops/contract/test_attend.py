"""Attention over selected keys: values, gradients and log-sum-exps are those of the definition in float64."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.cases import (
    BACKENDS,
    TRITON_ALONE,
    WITHOUT_MATRIX_UNIT,
    attention,
    clustered,
    doubled,
    examples,
    far,
    qkv,
    random_selection,
    randoms,
    served,
)
from dsa.ops import blocked, reference
from dsa.ops.triton.launch import interpreted

attending = importlib.import_module("dsa.ops.native.attend")  # the package names a function as it names the module

HEADS = st.sampled_from([(1, 1, 1), (4, 4, 2), (4, 4, 1), (4, 1, 1), (4, 2, 1), (4, 2, 4), (6, 2, 3), (6, 3, 2)])
SCALES = st.sampled_from([None, None, 0.2, 1.5])
CAPS = st.sampled_from([None, 0.7, 30.0])


@pytest.mark.slow
@given(
    batch=st.integers(1, 2), heads=HEADS, time=st.integers(1, 90), keys=st.integers(1, 90),
    dim=st.sampled_from([8, 20]), most=st.sampled_from([0, 1, 5, 200]), sink=st.booleans(), scale=SCALES, cap=CAPS,
    small=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@examples
def test_values_and_gradients_are_those_of_the_definition(
    backend, tiles, batch, heads, time, keys, dim, most, sink, scale, cap, small, seed
):
    cap = served(backend, cap)
    heads, kv_heads, groups = heads
    q, k, v = qkv(batch, heads, time, keys, dim, seed, kv_heads)
    sinks = randoms(heads).requires_grad_() if sink else None
    selection = random_selection(batch, groups, time, keys, most, seed)
    inputs = [x for x in (q, k, v, sinks) if x is not None]
    upstream = randoms(batch, heads, time, dim, seed=1)
    with tiles(small):
        out, logsumexp = backend.attend(q, k, v, selection, sinks, scale=scale, cap=cap)
        grads = torch.autograd.grad((out * upstream).sum(), inputs)
    exact = [doubled(x) for x in inputs]
    wanted, wanted_lse = reference.attend(*exact[:3], selection, exact[3] if sink else None, scale=scale, cap=cap)
    wanted_grads = torch.autograd.grad((wanted * upstream).sum(), exact)
    assert far(out, wanted) < 1e-5
    finite = wanted_lse.isfinite()
    assert torch.equal(finite, logsumexp.isfinite())
    torch.testing.assert_close(logsumexp[finite].double(), wanted_lse[finite], rtol=1e-5, atol=1e-5)
    for got, want in zip(grads, wanted_grads, strict=True):
        assert far(got, want, least=1) < 1e-4
    assert not logsumexp.requires_grad


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_formats_are_widened_before_anything_is_computed(backend, dtype, rounding):
    if backend is reference:  # it computes in whatever format it is given
        return
    x = [part.detach().to(dtype).requires_grad_() for part in qkv(1, 4, 12, 12, 8, kv_heads=2)]
    exact, selection = [doubled(part) for part in x], random_selection(1, 1, 12, 12, 5)
    (out, logsumexp), (wanted, wanted_lse) = backend.attend(*x, selection), reference.attend(*exact, selection)
    assert out.dtype == dtype
    assert far(out, wanted) < rounding
    torch.testing.assert_close(logsumexp.double(), wanted_lse, rtol=1e-5, atol=1e-5)
    upstream = randoms(*out.shape, seed=1).to(dtype)
    grads = torch.autograd.grad(out, x, upstream), torch.autograd.grad(wanted, exact, upstream.double())
    for got, want in zip(*grads, strict=True):
        assert got.dtype == dtype
        assert far(got, want) < 4 * rounding


@pytest.mark.parametrize(("time", "keys"), [(1, 1), (70, 70), (33, 300)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(("sink", "scale", "cap"), [(False, None, None), (True, 0.3, 0.7)])
def test_the_dense_logsumexp_is_that_of_the_definition(backend, time, keys, heads, kv_heads, sink, scale, cap):
    q, k, _ = qkv(2, heads, time, keys, 8, kv_heads=kv_heads)
    sinks, cap = randoms(heads) if sink else None, served(backend, cap)
    got = backend.dense_logsumexp(q, k, sinks, scale=scale, cap=cap)
    assert far(got, reference.dense_logsumexp(doubled(q), doubled(k), doubled(sinks), scale=scale, cap=cap)) < 1e-6


@pytest.mark.parametrize("sink", [False, True])
def test_mass_is_the_exponential_of_the_difference_of_the_logsumexps(backend, sink):
    q, k, v = (x.detach() for x in qkv(1, 4, 40, 40, 8, kv_heads=2))
    sinks = randoms(4) if sink else None
    selection = random_selection(1, 2, 40, 40, 9)
    chosen = reference.to_mask(selection, 40).repeat_interleave(2, 1) & reference.causal(40, 40)
    selection = reference.from_mask(chosen)
    _, sparse = backend.attend(q, k, v, selection, sinks, scale=0.4)
    logits = (q @ k.repeat_interleave(2, 1).mT * 0.4).double().masked_fill(~reference.causal(40, 40), -torch.inf)
    extra = (sinks if sink else torch.full((4,), -torch.inf))[None, :, None, None].double().expand(1, 4, 40, 1)
    p = torch.cat([logits, extra], -1).softmax(-1)
    mass = p[..., :40].masked_fill(~chosen, 0).sum(-1) + p[..., 40]
    got = (sparse - backend.dense_logsumexp(q, k, sinks, scale=0.4)).exp()
    torch.testing.assert_close(got.double(), mass, rtol=1e-5, atol=1e-6)


@given(
    heads=HEADS, time=st.integers(1, 60), most=st.sampled_from([1, 9, 200]), sink=st.booleans(), scale=SCALES, cap=CAPS,
    target_groups=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@examples
def test_the_target_is_the_attention_that_gave_the_output(
    backend, heads, time, most, sink, scale, cap, target_groups, seed
):
    cap = served(backend, cap)
    heads, kv_heads, groups = heads
    keys = time + 5
    q, k, v = qkv(2, heads, time, keys, 8, seed, kv_heads)
    sinks = randoms(heads) if sink else None
    selection = random_selection(2, groups, time, keys, most, seed)
    learn = groups if target_groups else 1
    out, target = backend.attend_with_target(q, k, v, selection, learn, sinks, scale=scale, cap=cap)
    alone, logsumexp = backend.attend(q, k, v, selection, sinks, scale=scale, cap=cap)
    assert torch.equal(out, alone)
    assert torch.equal(target.logsumexp, logsumexp)
    assert (target.groups, target.scale, target.cap) == (learn, scale, cap)
    assert not any(x.requires_grad for x in target[:3])
    if target.mass is not None:
        wanted = doubled(attention(q, k, selection, learn, sink=sinks, scale=scale, cap=cap))
        p = wanted.scores(slice(0, time), slice(0, keys))
        chosen = selection.positions.long().clamp(min=0).expand(-1, learn, -1, -1)
        used = (selection.positions >= 0).expand_as(chosen)
        sums = target.mass.sums.transpose(0, 1)[..., : chosen.shape[-1]]
        torch.testing.assert_close(sums[used].double(), p.gather(-1, chosen)[used], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS if TRITON_ALONE else [*BACKENDS, WITHOUT_MATRIX_UNIT], indirect=True)
@pytest.mark.parametrize(
    ("time", "keys", "dim"),
    [(100, 100, 32), (77, 131, 20), (260, 260, 64), (300, 600, 32)][: 2 if interpreted() else None],
)
def test_gradients_of_whole_blocks_and_of_single_pairs_add_up(backend, monkeypatch, time, keys, dim):
    monkeypatch.setattr(attending, "BACKWARD_TILE", 1)  # of 256 keys, the least
    q, k, v = qkv(1, 4, time, keys, dim, kv_heads=2)
    selection = clustered(time, keys, 40, 12)
    out, _ = backend.attend(q, k, v, selection)
    grads = torch.autograd.grad((out * randoms(*out.shape, seed=1)).sum(), (q, k, v))
    exact = [doubled(x) for x in (q, k, v)]
    wanted = reference.attend(*exact, selection)[0]
    for got, want in zip(grads, torch.autograd.grad((wanted * randoms(*out.shape, seed=1)).sum(), exact), strict=True):
        assert far(got, want) < 3e-5


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("cap", [None, 0.7])
def test_in_float64_gradients_are_exact_to_it(groups, sink, cap):
    q, k, v = (doubled(x) for x in qkv(2, 4, 60, 60, 8, kv_heads=2))
    extra = [randoms(4).double().requires_grad_()] if sink else []
    selection = random_selection(2, groups, 60, 60, 9)
    results = []
    for ops in (reference, blocked):
        out, logsumexp = ops.attend(q, k, v, selection, *extra, cap=cap)
        results.append(
            [out, logsumexp, *torch.autograd.grad(out, [q, k, v, *extra], randoms(*out.shape, seed=2).double())]
        )
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
