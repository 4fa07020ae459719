import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from dsa.analysis.compare import family
from dsa.analysis.scale import scale_of
from dsa.analysis.statistics import (
    bootstrap_interval,
    constant,
    difference,
    effect_size,
    equivalence,
    holm,
    sign_flip,
    t_interval,
    t_test,
    visible,
)

DRAW = np.random.default_rng(3)
A, B = DRAW.normal(1.0, 0.1, 9), DRAW.normal(1.05, 0.1, 9)


def test_the_t_test_is_scipys_paired_one_and_its_interval_statsmodels():
    assert t_test(A - B) == pytest.approx(stats.ttest_rel(A, B).pvalue, rel=1e-12)
    assert t_interval(A - B) == pytest.approx(DescrStatsW(A - B).tconfint_mean(), rel=1e-12)


def test_equivalence_is_statsmodels_own():
    assert equivalence(A - B, 0.1) == pytest.approx(ttost_paired(A, B, -0.1, 0.1)[0], rel=1e-12)


def test_the_interval_is_scipys_bca():
    own = stats.bootstrap(
        (A - B,), np.mean, paired=True, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_interval(A - B) == pytest.approx((own.low, own.high), rel=1e-12)


def test_the_sign_flip_test_counts_every_flip():
    d = A - B
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(d))).reshape(len(d), -1).T
    means = np.abs((signs * d).mean(1))
    assert sign_flip(d) == pytest.approx((means >= abs(d.mean()) - 1e-12).mean(), rel=1e-12)
    assert sign_flip(np.full(8, 0.3)) == pytest.approx(2.0**-7)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_the_detectable_effect_is_statsmodels_own():
    power = TTestPower()
    for seeds, comparisons in ((5, 1), (8, 1), (10, 13)):
        theirs = power.solve_power(nobs=seeds, alpha=0.05 / comparisons, power=0.8)
        assert visible(seeds, comparisons) == pytest.approx(theirs, rel=2e-3)


@pytest.mark.parametrize("value", [0.0, 0.004, 0.3, -0.3])
def test_constant_differences_follow_the_stated_rule(value):
    d = difference(np.full(8, value), margin=0.01)
    numbers = [d.mean, d.p, d.p_sign_flip, d.p_equivalence, d.detectable, *d.interval, *d.t_interval]
    assert np.isfinite(numbers).all()
    assert d.interval == (value, value)
    assert d.p == d.p_sign_flip == (1.0 if value == 0 else 2.0**-7)
    assert d.p_equivalence == (2.0**-8 if abs(value) < 0.01 else 1.0)
    assert d.effect == (0.0 if value == 0 else None)


def test_rounding_makes_no_difference_significant():
    mine = DRAW.normal(1.0, 0.1, 8)
    d = (mine + 0.1) - 0.1 - mine
    assert np.ptp(d) > 0
    assert constant(d)
    assert t_test(d) == 1.0


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_give_finite_numbers_or_none(seeds):
    d = difference(DRAW.normal(0, 1, seeds), margin=0.01)
    for value in (d.p, d.p_sign_flip, d.p_equivalence, d.sd, d.effect, d.detectable):
        assert value is None or np.isfinite(value)
    assert (d.interval is None) == (seeds < 3)


def test_effect_size_is_in_deviations_of_the_difference():
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)


def found_in_draws(means: list[float], draws: int, seeds: int) -> np.ndarray:
    """Which differences of a family are significant after correction, drawn again and again."""
    noise = np.random.default_rng(0).normal(0, 1, (draws, len(means), seeds))
    d = noise + np.array(means)[:, None]
    p = stats.ttest_1samp(d, 0.0, axis=-1).pvalue
    assert p[0, 0] == pytest.approx(t_test(d[0, 0]))
    return np.array([holm(list(row)) for row in p]) < 0.05


def test_null_effects_are_found_no_more_often_than_promised():
    """13 true nulls at once: some is called different in at most 5 % of studies."""
    found = found_in_draws([0.0] * 13, draws=2000, seeds=10).any(1).mean()
    assert 0.035 < found < 0.065


def test_power_is_as_predicted():
    effect = visible(10, 1)
    found = found_in_draws([effect], draws=2000, seeds=10).mean()
    assert found == pytest.approx(0.8, abs=0.03)


def false_alarms(draws: int, conditions: int, seeds: int) -> float:
    """Share of studies of true nulls sharing one baseline in which the whole path says better or worse."""
    draw = np.random.default_rng(5)
    scale, wrong = scale_of("val_loss"), 0
    for _ in range(draws):
        baseline = draw.normal(0, 1, seeds)
        pairs = {(f"c{i}", "base"): draw.normal(0, 1, seeds) - baseline for i in range(conditions)}
        wrong += any(c.word in ("better", "worse") for c in family(pairs, 64, scale, margin=0.01))
    return wrong / draws


def test_a_study_of_nulls_rarely_calls_any_condition_different(monkeypatch):
    """Through the words themselves, conditions sharing a baseline; fewer bootstrap draws, which decide nothing here."""
    monkeypatch.setattr("dsa.analysis.statistics.RESAMPLES", 199)
    assert false_alarms(draws=100, conditions=3, seeds=8) <= 0.05 + 2.6 * (0.05 * 0.95 / 100) ** 0.5


@pytest.mark.slow
def test_the_family_wise_error_of_the_words_is_nominal(monkeypatch):
    monkeypatch.setattr("dsa.analysis.statistics.RESAMPLES", 199)
    assert 0.01 < false_alarms(draws=1200, conditions=3, seeds=8) < 0.065


def test_equivalence_is_not_claimed_from_noise():
    """Without a true difference but noise wider than the margin, and with one as large as the margin."""
    d = np.random.default_rng(0).normal(0, 1, (1000, 5))
    wide = np.mean([equivalence(row, 0.2) < 0.05 for row in d])
    assert wide < 0.01
    at_the_margin = np.mean([equivalence(row + 2, 2.0) < 0.05 for row in d])
    assert 0.03 < at_the_margin < 0.065
