"""What is said about one paired difference."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from dsa.analysis.statistics.difference import difference, effect_size, t_test
from dsa.analysis.statistics.intervals import beyond_zero, bootstrap_interval, share_interval, t_interval

DRAW = np.random.default_rng(3)
A, B = DRAW.normal(1.0, 0.1, 9), DRAW.normal(1.05, 0.1, 9)


def test_the_t_test_is_scipys_paired_one_and_its_interval_statsmodels():
    assert t_test(A - B) == pytest.approx(stats.ttest_rel(A, B).pvalue, rel=1e-12)
    assert t_interval(A - B) == pytest.approx(DescrStatsW(A - B).tconfint_mean(), rel=1e-12)


def test_the_interval_is_scipys_bca():
    own = stats.bootstrap(
        (A - B,), np.mean, paired=True, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap_interval(A - B) == pytest.approx((own.low, own.high), rel=1e-12)


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_the_interval_of_a_share_is_statsmodels(successes):
    assert share_interval(successes, 10) == pytest.approx(proportion_confint(successes, 10, method="beta"))


def test_a_mean_is_beyond_zero_only_if_both_intervals_are():
    assert beyond_zero(np.full(5, 0.1)) == 1
    assert beyond_zero(np.full(5, -0.1)) == -1
    few = np.array([0.01, 0.3, 0.5])
    assert bootstrap_interval(few)[0] > 0 > t_interval(few)[0]
    assert beyond_zero(few) == 0
    assert beyond_zero(np.array([0.1])) == 0


@pytest.mark.parametrize("value", [0.0, 0.004, 0.3, -0.3])
def test_differences_that_do_not_vary_follow_the_stated_rules(value):
    d = difference(pd.Series(np.full(8, value)), margin=0.01)
    assert d.interval == (value, value)
    assert d.p == d.p_t == (1.0 if value == 0 else 2.0**-7)
    assert d.p_no_loss == (pytest.approx(0.8**8) if abs(value) < 0.01 else 1.0)
    assert d.effect == (0.0 if value == 0 else None)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_give_finite_numbers_or_none(seeds):
    d = difference(pd.Series(DRAW.normal(0, 1, seeds)), margin=0.01)
    for value in (d.p, d.p_t, d.p_no_loss, d.sd, d.effect, d.detectable):
        assert value is None or np.isfinite(value)
    assert (d.interval is None) == (seeds < 3)


def test_effect_size_is_in_deviations_of_the_difference():
    assert effect_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)


def test_seeds_are_counted_and_the_worst_is_named():
    losses = pd.Series([0.0, 0.005, -0.3, 0.02, 0.7], index=[3, 4, 5, 6, 9])
    d = difference(losses, margin=0.01)
    assert (d.within, d.successes, d.seeds) == (2, 3, 5)
    assert d.success_rate == pytest.approx(0.6)
    assert d.success_interval == pytest.approx(proportion_confint(3, 5, method="beta"))
    assert (d.worst_seed, d.worst) == (9, 0.7)
    accuracies = difference(losses, margin=0.01, sign=-1)
    assert (accuracies.successes, accuracies.worst_seed, accuracies.worst) == (4, 5, -0.3)


def test_without_a_margin_no_seed_counts_as_near():
    d = difference(pd.Series([0.1, 0.2, 0.3]), margin=0.0)
    assert d.within is d.successes is d.success_rate is d.success_interval is None
    assert d.worst_seed == 2
