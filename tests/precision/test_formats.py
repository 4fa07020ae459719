"""Number formats: what they round to, and that gradients pass straight through."""

import pytest
import torch
from conftest import options

from dsa import compose
from dsa.ops import IndexFeatures
from dsa.precision.float8 import hadamard


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
    assert 0 < errors["mixed"] <= errors["fp16"] < errors["bf16"] < errors["int4"]
    assert errors["fp16"] < errors["int8"] < errors["fp8"] < errors["int4"] < 0.5


@pytest.mark.parametrize("name", options("precision"))
def test_gradients_pass_straight_through(name):
    x = features()
    cast = format_of(f"precision={name}").cast(x)
    cast.queries.sum().backward()
    torch.testing.assert_close(x.queries.grad, torch.ones_like(x.queries))


@pytest.mark.parametrize("name", options("precision"))
def test_each_row_is_rounded_on_its_own(name):
    """A scale shared between rows would let later tokens change earlier scores."""
    precision, x = format_of(f"precision={name}"), features()
    whole = precision.cast(x)
    grown = x._replace(keys=torch.cat([x.keys[:, :, :12], x.keys[:, :, 12:] * 100], 2))
    assert torch.equal(precision.cast(grown).keys[:, :, :12], whole.keys[:, :, :12])


@pytest.mark.parametrize(("bits", "levels"), [(8, 127), (4, 7)])
def test_integers_are_whole_multiples_of_the_rows_scale(bits, levels):
    x = features()
    cast = format_of(f"precision=int{bits}").cast(x).keys.detach()
    scale = x.keys.detach().abs().amax(-1, keepdim=True) / levels
    steps = cast / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert steps.abs().max() <= levels + 1e-3


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


def test_the_hadamard_rotation_keeps_scores_and_spreads_outliers():
    matrix = hadamard(16)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(16))
    x = features()
    keys = x.keys.detach().clone()
    keys[..., 0] *= 300  # e4m3 holds about 2^-9 to 448: the small dims underflow beside such an outlier
    outlier = x._replace(keys=keys, queries=x.queries.detach().clone())
    outlier.queries[..., 0] /= 300
    exact = scores(outlier)
    plain, rotated = (
        (scores(format_of("precision=fp8", f"precision.hadamard={h}").cast(outlier)) - exact).norm()
        for h in ("false", "true")
    )
    assert rotated != plain
    torch.testing.assert_close(
        scores(x._replace(queries=x.queries @ matrix, keys=x.keys @ matrix)), scores(x), atol=1e-4, rtol=1e-4
    )


def test_zero_rows_stay_zero():
    x = features()._replace(keys=torch.zeros(2, 1, 24, 16))
    for name in options("precision"):
        assert not format_of(f"precision={name}").cast(x).keys.any()


def test_only_fp32_is_not_simulated():
    assert [n for n in options("precision") if not format_of(f"precision={n}").simulated] == ["fp32"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["precision=int8", "precision.bits=1"], "precision.bits = 1"),
        (["precision=fp16", "precision.dtype=float12"], "precision.dtype = float12"),
        (["precision=fp8", "precision.group=0"], "precision.group = 0"),
    ],
)
def test_an_impossible_setting_is_named(overrides, words):
    with pytest.raises(ValueError, match=words):
        format_of(*overrides)
