"""The fused CPU backend against the definition in float64."""

import importlib
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from dsa.ops import IndexFeatures, Selection, compiler, native, reference
from dsa.ops.zones import Zone

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
attending = importlib.import_module("dsa.ops.native.attend")
CAUSAL = (Zone(None),)


BUILDS = [
    "native",
    pytest.param("-march=haswell", marks=pytest.mark.slow),
    pytest.param("-march=x86-64", marks=pytest.mark.slow),
    pytest.param("threads", marks=pytest.mark.slow),
]
WITHOUT_MATRIX_UNIT = pytest.param("-mno-amx-bf16", marks=pytest.mark.slow)


@pytest.fixture(params=BUILDS, scope="module")
def built(request):
    """The kernels for this processor, for lesser ones, and on std::thread instead of OpenMP."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "threads":
            patch.setattr(compiler, "torch_has_openmp", lambda: False)
        elif request.param != "native":
            if "avx2" not in compiler.processor():
                pytest.skip("this processor does not run the code of x86 processors with AVX2")
            patch.setenv("CXXFLAGS", request.param)
        compiler.library.cache_clear()
        yield request.param
    compiler.library.cache_clear()


def randoms(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def wholes(*shape, seed=0):
    """Small whole numbers: exact in any order of summation, and full of ties."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed + sum(shape))).float()


def double(x):
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def far(got, wanted):
    """Largest difference relative to the largest value."""
    assert got.shape == wanted.shape
    return ((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-12)).item()


def same(a: Selection, b: Selection) -> bool:
    return torch.equal(a.positions, b.positions) and torch.equal(a.counts, b.counts)


def qkv(batch, heads, time, keys, dim, seed=0):
    """As a projection gives them: the heads of one token side by side."""
    lengths = (time, keys, keys)
    return [
        randoms(batch, n, heads * dim, seed=seed + i).view(batch, n, heads, dim).transpose(1, 2).requires_grad_()
        for i, n in enumerate(lengths)
    ]


def random_selection(batch, groups, time, keys, most, seed=0):
    """Each query keeps any number of any keys."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, min(most, keys) + 1, (batch, groups, time), generator=generator)
    order = torch.rand(batch, groups, time, keys, generator=generator).argsort(-1).argsort(-1)
    return reference.from_mask(order < counts[..., None])


@pytest.mark.parametrize(("heads", "dim", "signed"), [(1, 8, True), (2, 4, False)])
def test_long_rows_whose_threshold_is_estimated_select_the_best(built, heads, dim, signed):
    length = 9000
    weights = randoms(1, 1, 64, heads)
    features = IndexFeatures(
        randoms(1, 1, 64, heads, dim), randoms(1, 1, length, dim), weights if signed else weights.abs()
    )
    limit = torch.full((1, 1, 64), 100)
    got = native.select(features, CAUSAL, limit, offset=length - 64)
    scores = features.scores(slice(0, 64), slice(0, length)).double()
    visible = torch.arange(length) <= torch.arange(length - 64, length)[:, None]
    best = torch.where(visible, scores, -math.inf).topk(100).values
    mine = scores.gather(-1, got.positions.long()).sort(descending=True).values
    torch.testing.assert_close(mine, best, rtol=1e-6, atol=1e-6)
    assert bool((got.positions.diff() > 0).all())


@pytest.mark.parametrize("order", ["rising", "falling", "two values", "a spike between samples"])
def test_rows_that_mislead_the_estimate_are_selected_exactly(built, order):
    length, k = 9000, 64
    step = torch.arange(length).float()
    keys = {
        "rising": step,
        "falling": -step,
        "two values": (step % 2),
        "a spike between samples": torch.where((step > 4000) & (step < 4040), 5.0, -(step % 7)),
    }[order]
    features = IndexFeatures(
        torch.ones(1, 1, 40, 2, 4), keys[None, None, :, None].expand(1, 1, length, 4), None, "none"
    )
    limit = torch.full((1, 1, 40), k)
    got = native.select(features, CAUSAL, limit, offset=length - 40)
    assert same(got, reference.select(features, CAUSAL, limit, offset=length - 40))


def step(threads, length=500):
    torch.set_num_threads(threads)
    q, k, v = qkv(1, 3, length, length, 20)
    features = IndexFeatures(
        *(randoms(*s).requires_grad_() for s in ((1, 1, length, 2, 4), (1, 1, length, 4), (1, 1, length, 2)))
    )
    selection = native.select(features, CAUSAL, torch.full((1, 1, length), 60))
    out, target = native.attend_with_target(q, k, v, selection)
    loss = native.indexer_loss(features, target, selection)
    grads = torch.autograd.grad((out * randoms(*out.shape)).sum() + loss, [q, k, v, *features[:3]])
    return [selection.positions, out.detach(), target.logsumexp, loss.detach(), *grads]


@pytest.mark.parametrize("threads", [1, 2])
def test_results_repeat_bit_for_bit(built, threads):
    for a, b in zip(step(threads), step(threads), strict=True):
        assert torch.equal(a, b)


def test_results_hardly_depend_on_the_number_of_threads(built):
    for a, b, c in zip(step(1), step(2), step(5), strict=True):
        assert far(b, a) < 1e-6
        assert far(c, a) < 1e-6


def test_a_nan_score_of_a_legal_key_is_reported(built):
    features = IndexFeatures(randoms(1, 1, 50, 2, 4), randoms(1, 1, 50, 4).index_fill(2, torch.tensor([20]), math.nan))
    with pytest.raises(FloatingPointError, match=r"30 are NaN, the first for query 20"):
        native.select(features, CAUSAL, torch.full((1, 1, 50), 4))


def test_a_nan_of_the_future_is_no_concern_of_the_past(built):
    keys = randoms(1, 1, 50, 4).index_fill(2, torch.arange(30, 50), math.nan)
    features = IndexFeatures(randoms(1, 1, 50, 2, 4), keys)
    got = native.select(features._replace(queries=features.queries[:, :, :30]), CAUSAL, torch.full((1, 1, 30), 4))
    assert int(got.positions.max()) < 30


def test_infinite_scores_rank_first_and_last(built):
    keys = torch.zeros(1, 1, 40, 4)
    keys[0, 0, 5, 0], keys[0, 0, 7, 0] = math.inf, -math.inf
    features = IndexFeatures(torch.ones(1, 1, 40, 2, 4), keys, None, "none")
    got = native.select(features, CAUSAL, torch.full((1, 1, 40), 8))
    assert 5 in got.positions[0, 0, 20]
    assert 7 not in got.positions[0, 0, 20]
    assert same(got, reference.select(features, CAUSAL, torch.full((1, 1, 40), 8)))


def test_nan_in_the_values_reaches_the_output(built):
    q, k, v = (x.detach() for x in qkv(1, 2, 20, 20, 8))
    v[0, 0, 3] = math.nan
    out, _ = native.attend(q, k, v, reference.from_mask(reference.causal(20, 20)[None, None]))
    assert bool(out[0, 0, 3:].isnan().all())
    assert not bool(out[0, 0, :3].isnan().any() | out[0, 1].isnan().any())


def test_positions_beyond_the_keys_are_refused(built):
    q, k, v = qkv(1, 2, 20, 20, 8)
    bad = Selection(torch.full((1, 1, 20, 1), 20, dtype=torch.int32), torch.ones(1, 1, 20, dtype=torch.int32))
    with pytest.raises(IndexError, match="outside the 20 keys"):
        native.attend(q, k, v, bad)


def test_half_precision_goes_in_and_comes_out_and_is_computed_in_single(built):
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in qkv(1, 2, 40, 40, 8))
    selection = random_selection(1, 1, 40, 40, 9)
    out, _ = native.attend(q, k, v, selection)
    wanted, _ = reference.attend(*(x.double() for x in (q, k, v)), selection)
    grads = torch.autograd.grad(out.float().sum(), (q, k, v))
    assert {out.dtype, *(g.dtype for g in grads)} == {torch.bfloat16}
    assert torch.equal(out, native.attend(*(x.float() for x in (q, k, v)), selection)[0].bfloat16())
    assert far(out, wanted) < 1e-2


def test_gradients_survive_checkpointing_and_two_forwards_before_one_backward(built):
    q, k, v = qkv(1, 2, 40, 40, 8)
    selection, other = random_selection(1, 1, 40, 40, 9), random_selection(1, 2, 40, 40, 20, seed=1)
    run = lambda s: native.attend(q, k, v, s)[0].square().sum()
    plain = [torch.autograd.grad(run(s), (q, k, v)) for s in (selection, other)]
    together = torch.autograd.grad(run(selection) + run(other), (q, k, v))
    again = torch.autograd.grad(checkpoint(run, selection, use_reentrant=False), (q, k, v))
    for a, b, both, redone in zip(*plain, together, again, strict=True):
        torch.testing.assert_close(a + b, both)
        assert torch.equal(a, redone)


def test_output_and_gradients_lie_in_memory_as_the_projections_do(built):
    q, k, v = qkv(2, 4, 30, 30, 8)
    out, _ = native.attend(q, k, v, random_selection(2, 1, 30, 30, 9))
    for x in (out, *torch.autograd.grad(out.sum(), (q, k, v))):
        assert x.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_loss_is_the_same_from_the_probabilities_that_attending_left(built, groups, threads):
    torch.set_num_threads(threads)
    q, k, v = qkv(1, 4, 60, 60, 8)
    features = IndexFeatures(*(randoms(*s) for s in ((1, groups, 60, 2, 4), (1, 1, 60, 4), (1, groups, 60, 2))))
    selection = random_selection(1, groups, 60, 60, 20)
    _, target = native.attend_with_target(q, k, v, selection, groups)
    assert target.mass is not None
    left = native.indexer_loss(features, target, selection)
    wanted = reference.indexer_loss(features, target._replace(mass=None), selection)
    torch.testing.assert_close(left, wanted)
    torch.testing.assert_close(left, native.indexer_loss(features, target._replace(mass=None), selection))
    squared = target._replace(mass=target.mass._replace(sums=target.mass.sums.square()))
    assert (native.indexer_loss(features, squared, selection) - left).abs() > 1e-3  # it is what was left that is read


def test_without_room_or_with_other_groups_no_probabilities_are_left(built, monkeypatch):
    q, k, v = qkv(1, 4, 60, 60, 8)
    selection = random_selection(1, 1, 60, 60, 20)
    assert native.attend_with_target(q, k, v, selection, groups=2)[1].mass is None
    monkeypatch.setattr(attending, "KEPT_MASS", 0)
    assert native.attend_with_target(q, k, v, selection)[1].mass is None


def clustered(time, keys, near, far, seed=0):
    """Each query's nearest keys and a few others: whole blocks along the diagonal, single pairs elsewhere."""
    torch.manual_seed(seed)
    place = torch.arange(keys)
    distance = (torch.arange(time)[:, None] + keys - time) - place
    chosen = (distance >= 0) & ((distance < near) | (torch.rand(time, keys) < far / keys))
    counts = chosen.sum(1)
    positions = torch.where(chosen, place, keys).sort(1).values[:, : max(int(counts.max()), 1)]
    return Selection(positions.where(positions < keys, -1)[None, None].int(), counts[None, None].int())


@pytest.mark.parametrize("built", [*BUILDS, WITHOUT_MATRIX_UNIT], indirect=True)
@pytest.mark.parametrize(("time", "keys", "dim"), [(100, 100, 32), (77, 131, 20), (260, 260, 64), (300, 600, 32)])
def test_gradients_of_whole_blocks_and_of_single_pairs_add_up(built, monkeypatch, time, keys, dim):
    monkeypatch.setattr(attending, "BACKWARD_TILE", 1)  # of 256 keys, the least
    q, k, v = qkv(1, 2, time, keys, dim)
    selection = clustered(time, keys, 40, 12)
    out, _ = native.attend(q, k, v, selection)
    grads = torch.autograd.grad((out * randoms(*out.shape, seed=1)).sum(), (q, k, v))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted = reference.attend(*exact, selection)[0]
    for got, want in zip(grads, torch.autograd.grad((wanted * randoms(*out.shape, seed=1)).sum(), exact), strict=True):
        assert far(got, want) < 3e-5


@pytest.mark.parametrize("built", [*BUILDS, WITHOUT_MATRIX_UNIT], indirect=True)
@pytest.mark.parametrize("broken", ["key", "value", "query", "grad"])
def test_nan_reaches_the_gradients_of_the_pairs_it_belongs_to_and_no_others(built, broken):
    q, k, v = (x.detach() for x in qkv(1, 1, 96, 96, 32))
    grad = randoms(1, 1, 96, 32, seed=1)
    all_ones = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # the NaN that rounding up could carry to zero
    {"key": k, "value": v, "query": q, "grad": grad}[broken][0, 0, 50] = all_ones
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    selection = clustered(96, 96, 30, 5)
    out, _ = native.attend(q, k, v, selection)
    grads = torch.autograd.grad(out, (q, k, v), grad)
    chosen = torch.zeros(96, 97, dtype=torch.bool).scatter(1, selection.positions[0, 0].long() % 97, True)[:, :96]
    hit = torch.zeros(96, dtype=torch.bool)
    if broken in ("key", "value"):
        hit = chosen[:, 50]
    else:
        hit[50] = True
    assert bool(grads[0][0, 0, ~hit].isfinite().all())
    assert bool(grads[0][0, 0, hit].isnan().all())
    touched = chosen[hit].any(0)
    assert bool(grads[1][0, 0, ~touched].isfinite().all())
    assert bool(grads[2][0, 0, ~touched].isfinite().all())
