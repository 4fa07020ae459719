"""Number formats: what they round to, and that gradients pass straight through."""

import functools

import pytest
import torch
from conftest import SMALL, options

from dsa import build_model, compose
from dsa.ops import IndexFeatures, Zone, select
from dsa.ops.native import multiplies
from dsa.precision.float8 import hadamard
from dsa.training.caveats import simulated


@functools.cache
def format_of(*overrides):
    return compose(list(overrides)).precision.make()


def features(dim=16):
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 1, 24, 2, dim), (2, 1, 24, dim), (2, 1, 24, 2))
    return IndexFeatures(*(torch.randn(s, generator=draw).requires_grad_() for s in shapes))


def scores(x):
    return x.scores(slice(0, 24), slice(0, 24))


def relative_error(precision):
    exact = scores(features())
    return float((scores(precision.cast(features())) - exact).norm() / exact.norm())


def test_finer_formats_have_smaller_errors():
    errors = {name: relative_error(format_of(f"precision={name}")) for name in options("precision")}
    assert errors["fp32"] == 0
    assert 0 < errors["fp16_minimal"] < errors["mixed"] < errors["fp16_optimized"] < errors["fp16"] < errors["bf16"]
    assert errors["mixed"] < errors["mixed_optimized"] < errors["int8"] < errors["fp8"]
    assert errors["bf16"] < errors["mixed_minimal"] < errors["int4"]
    assert errors["fp16"] < errors["int8"] < errors["int8_tensor"] < errors["fp8"] < errors["int4"] < 0.5
    assert errors["int4"] < errors["int4_tensor"] < 0.6
    assert errors["int8"] < errors["dynamic"] < errors["int4"]


def test_groups_of_dims_round_finer_than_whole_rows():
    long = features(64)
    exact = scores(long)
    for bits in (4, 8):
        rows, groups = (
            (scores(format_of(f"precision=int{bits}{name}").cast(long)) - exact).norm() for name in ("", "_group")
        )
        assert groups < rows
        short, group = (format_of(f"precision=int{bits}{name}").cast(features(32)) for name in ("", "_group"))
        assert torch.equal(short.keys, group.keys), "32 dims are one group"


@pytest.mark.parametrize("name", options("precision"))
def test_gradients_pass_straight_through(name):
    x = features()
    cast = format_of(f"precision={name}").cast(x)
    cast.queries.sum().backward()
    torch.testing.assert_close(x.queries.grad, torch.ones_like(x.queries))


@pytest.mark.parametrize("name", options("precision"))
def test_rounding_does_not_see_the_future(name):
    """A scale that later tokens share would let them change earlier scores."""
    precision, x = format_of(f"precision={name}"), features()
    whole = precision.cast(x)
    grown = x._replace(
        queries=torch.cat([x.queries[:, :, :12], x.queries[:, :, 12:] * 100], 2),
        keys=torch.cat([x.keys[:, :, :12], x.keys[:, :, 12:] * 100], 2),
    )
    assert torch.equal(precision.cast(grown).keys[:, :, :12], whole.keys[:, :, :12])
    assert torch.equal(precision.cast(grown).queries[:, :, :12], whole.queries[:, :, :12])


@pytest.mark.parametrize("name", options("precision"))
def test_queries_of_later_parts_are_rounded_as_in_the_whole(name):
    """With the cache a later part brings its own queries and all keys."""
    precision, x = format_of(f"precision={name}"), features()
    part = precision.cast(x._replace(queries=x.queries[:, :, 12:], weights=x.weights[:, :, 12:]))
    assert torch.equal(part.queries, precision.cast(x).queries[:, :, 12:])


@pytest.mark.parametrize("bits", [4, 8])
def test_a_scale_of_the_tensor_is_that_of_the_largest_number_so_far(bits):
    """Sizes 1, 2, 1, 4: keys of size 1 behind one of 2 have half as many levels."""
    keys = torch.linspace(-1, 1, 16).repeat(4, 1) * torch.tensor([1.0, 2.0, 1.0, 4.0])[:, None]
    x = features()._replace(keys=keys[None, None])
    cast = format_of(f"precision=int{bits}_tensor").cast(x)
    levels = 2 ** (bits - 1) - 1
    for key, largest in zip(cast.keys[0, 0], (1.0, 2.0, 2.0, 4.0), strict=True):
        steps = key / (largest / levels)
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert not torch.equal(cast.keys[0, 0, 0], cast.keys[0, 0, 2])
    query = cast.queries.detach()
    scale = x.queries.detach().abs().amax((1, 3, 4), keepdim=True) / levels
    torch.testing.assert_close(query / scale, (query / scale).round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", options("precision"))
def test_every_backend_selects_the_same_keys_and_all_that_fit_a_large_budget(name):
    cast, zones = format_of(f"precision={name}").cast(features()), (Zone(first=None),)
    few, every = torch.full((2, 1, 24), 5), torch.full((2, 1, 24), 30)
    chosen = [select(cast, zones, few, backend=backend).positions for backend in ("reference", "blocked", "cpu")]
    assert all(torch.equal(one, chosen[0]) for one in chosen)
    for backend in ("reference", "blocked", "cpu"):
        assert torch.equal(select(cast, zones, every, backend=backend).counts, torch.arange(1, 25).expand(2, 1, -1))


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_integers_are_whole_multiples_of_the_rows_scale(bits, levels):
    x = features()
    cast = format_of(f"precision=int{bits}").cast(x).keys.detach()
    scale = x.keys.detach().abs().amax(-1, keepdim=True) / levels
    steps = cast / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert steps.abs().max() <= levels + 1e-3


def test_a_row_that_dynamic_holds_is_within_the_error_and_no_coarser_format_is():
    precision, x = format_of("precision=dynamic", "precision.error=0.1"), features()
    rows = x.keys.detach().clone()
    rows[:, :, 6:12, 0] *= 40  # one large number leaves the others few levels
    rows[:, :, 12:14] = 3.0  # of one size: four bits hold it
    rows[:, :, 14] = 0
    rows[:, :, 15] *= 1e6  # beyond float16, but integers have a scale
    x = x._replace(keys=rows)
    cast, held = precision.cast(x).keys, precision.bits(x).keys
    assert ((cast - rows).norm(dim=-1) <= 0.1 * rows.norm(dim=-1) * (1 + 1e-5)).all()
    assert {4.0, 8.0} <= set(held.flatten().tolist())
    assert (held[:, :, 12:15] == 4).all()
    four = format_of("precision=int4").cast(x).keys
    assert torch.equal((four - rows).norm(dim=-1) <= 0.1 * rows.norm(dim=-1), held == 4)
    for bits in (4, 8):
        assert torch.equal(cast[held == bits], format_of(f"precision=int{bits}").cast(x).keys[held == bits])


@pytest.mark.parametrize(("error", "width"), [(1.0, 4), (0.02, 8), (1e-3, 16), (1e-6, 32)])
def test_dynamic_goes_up_the_ladder_as_the_error_becomes_smaller(error, width):
    bits = format_of("precision=dynamic", f"precision.error={error}").bits(features())
    assert (bits.keys == width).all() and (bits.queries == width).all()


def test_a_dot_product_under_dynamic_is_off_by_no_more_than_it_promises():
    x, error = features(), 0.1
    cast = format_of("precision=dynamic").cast(x)
    exact, rounded = (torch.einsum("bgthd,bgsd->bgths", one.queries, one.keys) for one in (x, cast))
    lengths = x.queries.norm(dim=-1)[..., None] * x.keys.norm(dim=-1)[:, :, None, None]
    assert ((rounded - exact).abs() <= (2 * error + error**2) * lengths).all()


@pytest.mark.parametrize(
    ("name", "queries", "keys"),
    [("fp32", 32, 32), ("fp16_minimal", 32, 16), ("mixed_minimal", 16, 4), ("fp8", 8, 8), ("int4_tensor", 4, 4)],
)
def test_a_format_says_how_many_bits_a_number_takes(name, queries, keys):
    bits = format_of(f"precision={name}").bits(features())
    assert (bits.queries == queries).all() and bits.queries.shape == (2, 1, 24, 2)
    assert (bits.keys == keys).all() and bits.keys.shape == (2, 1, 24)


def test_half_formats_are_exactly_torchs():
    x = features()
    assert torch.equal(format_of("precision=fp16").cast(x).keys, x.keys.half().float())
    assert torch.equal(format_of("precision=bf16").cast(x).weights, x.weights.bfloat16().float())
    mixed = format_of("precision=mixed").cast(x)
    assert torch.equal(mixed.weights, x.weights)
    assert mixed.accumulate == torch.float32


def test_accumulating_in_a_half_format_rounds_the_scores_themselves():
    rounded = scores(format_of("precision=fp16").cast(features()))
    assert torch.equal(rounded, rounded.half().float())
    assert not torch.equal(*(scores(format_of(f"precision={n}").cast(features())) for n in ("fp16", "mixed")))


def test_the_hadamard_rotation_turns_queries_and_keys_alike_so_that_scores_stay():
    matrix = hadamard(16)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(16))
    x = features()
    exact = scores(x)
    plain, rotated = (scores(format_of("precision=fp8", f"precision.hadamard={h}").cast(x)) for h in ("false", "true"))
    for held in (plain, rotated):  # e4m3 has 3 bits behind the first: a number moves by 2^-4 of itself at most
        assert 0 < (held - exact).norm() / exact.norm() < 2**-4
    assert not torch.equal(rotated, plain)


def test_zero_rows_stay_zero():
    x = features()._replace(keys=torch.zeros(2, 1, 24, 16))
    for name in options("precision"):
        assert not format_of(f"precision={name}").cast(x).keys.any()


def test_what_is_not_simulated_is_fp32_and_what_the_kernels_multiply_as_it_is():
    def real(backend):
        cpu = torch.device("cpu")
        return [n for n in options("precision") if not format_of(f"precision={n}").simulated(backend, cpu)]

    assert real("blocked") == real("reference") == ["fp32"]
    here = {"bf16": torch.bfloat16, "fp32": None, "int8": torch.int8, "int8_tensor": torch.int8}
    assert real("cpu") == [name for name, dtype in here.items() if dtype is None or multiplies(dtype)]


@pytest.mark.skipif(not multiplies(torch.int8), reason="this processor does not multiply int8 as such")
@pytest.mark.parametrize(
    ("indexer", "told"), [(["h2d8"], False), (["hisa", "indexer.block=4"], True), (["multi_scale"], True)]
)
def test_a_result_says_that_a_format_is_simulated_where_the_kernels_do_not_serve_the_indexer(indexer, told):
    settings = [*SMALL, f"indexer={indexer[0]}", *indexer[1:]]
    for precision, expected in (("int8", told), ("fp32", False), ("int4", True)):
        spec = compose([*settings, f"precision={precision}"])
        assert simulated(spec, build_model(spec, 64)) is expected, precision


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["precision=int8", "precision.bits=1"], "precision.bits = 1"),
        (["precision=fp16", "precision.keys=float12"], "precision.keys = float12: give float32, float16"),
        (["precision=mixed", "precision.weights=int8"], "precision.weights = int8: give float32, float16"),
        (["precision=int8", "precision.scale=0"], "precision.scale = 0: give row, tensor or a whole number"),
        (["precision=dynamic", "precision.error=0"], "precision.error = 0"),
        (["precision=fp8", "precision.group=0"], "precision.group = 0"),
    ],
)
def test_an_impossible_setting_is_named(overrides, words):
    with pytest.raises(ValueError, match=words):
        format_of(*overrides)
