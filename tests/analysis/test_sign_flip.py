"""The test that decides: exact, equal to scipy's, and right about null studies whatever the shape of their noise."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.compare import family
from dsa.analysis.judgement.pareto import domination
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.sign_flip import DRAWS, EXACT, drawn, sign_flip
from dsa.analysis.statistics.values import SAME, Array

DRAW = np.random.default_rng(3)


def scipys(d: Array, resamples: int) -> float:
    done = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=resamples, batch=4096, axis=-1,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    return float(done.pvalue)


@pytest.mark.parametrize("seeds", [2, 5, 10, 13])
def test_every_flip_is_counted_as_scipy_counts_them(seeds):
    for shift in (0.0, 0.5, 2.0):
        d = DRAW.normal(shift, 1.0, seeds)
        assert sign_flip(d) == pytest.approx(scipys(d, 2**seeds), rel=1e-12)


def test_flips_that_tie_count():
    d = np.array([1.0, 1.0, -1.0, 1.0, 0.1 + 0.2 - 0.3])
    assert sign_flip(d) == pytest.approx(scipys(d, 2**5))
    assert sign_flip(np.full(8, 0.3)) == pytest.approx(2.0**-7)


def test_beyond_twenty_pairs_flips_are_drawn_and_p_is_never_zero():
    d = DRAW.normal(0.4, 1.0, EXACT + 5)
    assert sign_flip(d) == pytest.approx(scipys(d, 99_999), abs=0.004)
    assert sign_flip(np.full(40, 0.3)) == pytest.approx(1 / (1 + DRAWS))
    assert sign_flip(d) == sign_flip(d), "the same from call to call"


def test_the_drawn_flips_estimate_the_counted_ones():
    d = DRAW.normal(0.4, 1.0, EXACT)
    assert drawn(d, abs(d.sum()) * (1 - SAME)) == pytest.approx(sign_flip(d), abs=0.004)


def test_nothing_and_rounding_are_no_difference():
    mine = DRAW.normal(1.0, 0.1, 8)
    rounding = (mine + 0.1) - 0.1 - mine
    assert np.ptp(rounding) > 0
    assert [sign_flip(d) for d in (np.zeros(8), rounding, np.array([0.3]))] == [1.0, 1.0, 1.0]


def test_the_correction_is_statsmodels_own():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    for p in DRAW.uniform(0, 0.1, (1, 13)):
        assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def gaussian(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return draw.normal(0, 1, shape)


def skewed(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return draw.lognormal(0, 1.5, shape)


def bimodal(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Four seeds of ten fail."""
    return draw.normal(0, 0.05, shape) + 1.0 * (draw.uniform(size=shape) < 0.4)


SHAPES = [gaussian, skewed, bimodal]


def null_studies(noise: Callable, studies: int, conditions: int, seeds: int) -> Array:
    """Differences [studies, conditions, seeds] of conditions that share a baseline no different from them."""
    values = noise(np.random.default_rng(5), (studies, conditions + 1, seeds))
    return values[:, 1:] - values[:, :1]


def p_of(d: Array) -> Array:
    """p of each difference in [studies, conditions, seeds]."""
    if d.shape[-1] <= EXACT:
        return np.apply_along_axis(sign_flip, -1, d)
    flat = d.reshape(-1, d.shape[-1])
    least = np.abs(flat.sum(-1)) - SAME * np.abs(flat).sum(-1)
    chunks = [drawn(flat[i : i + 100].T, least[i : i + 100]) for i in range(0, len(flat), 100)]
    return np.concatenate(chunks).reshape(d.shape[:-1])


def family_error(noise: Callable, studies: int, conditions: int, seeds: int) -> float:
    """Share of null studies in which some condition is called different."""
    p = p_of(null_studies(noise, studies, conditions, seeds))
    return float(np.mean([min(holm(list(row))) < 0.05 for row in p]))


@pytest.mark.slow
@pytest.mark.parametrize("noise", SHAPES)
@pytest.mark.parametrize("seeds", [10, 30])
def test_a_study_of_nulls_calls_none_different_more_often_than_promised(noise, seeds):
    assert family_error(noise, 300, 3, seeds) <= 0.05 + 2.6 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("noise", SHAPES)
@pytest.mark.parametrize("seeds", [10, 30])
def test_the_family_error_is_nominal(noise, seeds):
    """Two thousand studies; not far below the promise either, which the t test is where seeds fail."""
    assert 0.02 < family_error(noise, 2000, 3, seeds) < 0.065


@pytest.mark.slow
@pytest.mark.parametrize("noise", SHAPES)
def test_one_that_none_dominates_is_called_dominated_no_more_often_than_promised(noise):
    """Fifteen others, as good and as dear."""
    studies = null_studies(noise, 300, 15, 10)
    called = [
        min(domination({str(i): (row, (0.0, 0.0)) for i, row in enumerate(study)}, margin=0.01).values()) < 0.05
        for study in studies
    ]
    assert np.mean(called) <= 0.05 + 2.6 * (0.05 * 0.95 / 300) ** 0.5


def test_one_p_at_a_time_is_what_the_null_studies_ask():
    d = null_studies(gaussian, 2, 2, 30)
    assert p_of(d)[1, 1] == sign_flip(d[1, 1])


@pytest.mark.slow
def test_the_words_of_a_comparison_are_those_of_the_test(monkeypatch):
    """Through the whole path, on nulls and on differences; few bootstrap draws, which decide nothing."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)
    shifts = np.array([0.0, 1.5, -1.5])[:, None]
    for d in null_studies(skewed, 20, 3, 10) + shifts:
        pairs = {(f"c{i}", "base"): pd.Series(row) for i, row in enumerate(d)}
        found = family(pairs, 64, scale_of("val_loss"), margin=0.01)
        for one, row, p in zip(found, d, holm([sign_flip(row) for row in d]), strict=True):
            expected = "inconclusive" if p >= 0.05 else "worse" if row.mean() > 0 else "better"
            assert one.word == expected and one.p == p
