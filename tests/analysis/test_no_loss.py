"""No loss is claimed only if the mean and most seeds lie within the margin, and not more often than promised."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from dsa.analysis.output.files import RULE
from dsa.analysis.statistics.no_loss import mean_within, no_loss, no_worse, seeds_within
from dsa.analysis.statistics.values import Array

DRAW = np.random.default_rng(3)
A, B = DRAW.normal(1.0, 0.1, 9), DRAW.normal(1.05, 0.1, 9)
MARGIN = 0.01


def test_the_mean_is_tested_as_by_statsmodels():
    assert mean_within(A - B, 0.1) == pytest.approx(ttost_paired(A, B, -0.1, 0.1)[0], rel=1e-12)


def test_the_seeds_are_tested_as_by_scipy():
    d = np.r_[np.zeros(27), np.ones(3)]
    assert seeds_within(d, 0.5) == pytest.approx(stats.binomtest(27, 30, 0.8, alternative="greater").pvalue)


@pytest.mark.parametrize(("within", "of", "comparisons"), [(30, 30, 13), (39, 40, 13), (57, 60, 13), (14, 14, 1)])
def test_so_many_seeds_have_to_lie_within_and_one_less_is_too_few(within, of, comparisons):
    def p(inside: int) -> float:
        return comparisons * seeds_within(np.r_[np.zeros(inside), np.ones(of - inside)], MARGIN)

    assert p(within) < 0.05 <= p(within - 1)


def test_ten_seeds_show_no_loss_of_no_one():
    assert no_loss(np.zeros(10), MARGIN) > 0.05


def test_without_a_margin_or_a_second_seed_nothing_is_shown():
    assert no_loss(np.zeros(40), 0.0) == 1.0
    assert no_loss(np.zeros(1), MARGIN) == 1.0


def test_a_mean_within_the_margin_is_not_enough():
    """A quarter of the seeds leaves the margin, a little up or down: the mean alone would pass."""
    d = np.r_[np.zeros(30), np.full(5, 0.012), np.full(5, -0.012)]
    assert mean_within(d, MARGIN) < 0.001
    assert no_loss(d, MARGIN) > 0.5


def claims(d: Array) -> float:
    """Share of studies [studies, seeds] that claim no loss."""
    return float(np.mean([no_loss(row, MARGIN) < 0.05 for row in d]))


def on_the_margin(name: str, draw: np.random.Generator, studies: int, seeds: int) -> Array:
    """Differences whose true mean is the margin."""
    shape = (studies, seeds)
    if name == "gaussian":
        return draw.normal(MARGIN, 0.003, shape)
    if name == "skewed":
        return MARGIN * draw.exponential(1.0, shape)
    return 5 * MARGIN * (draw.uniform(size=shape) < 0.2) + draw.normal(0, 1e-4, shape)  # a fifth of all seeds fails


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gaussian", "skewed", "bimodal"])
@pytest.mark.parametrize("seeds", [10, 30])
def test_a_true_difference_on_the_margin_is_not_called_none(name, seeds):
    assert claims(on_the_margin(name, np.random.default_rng(0), 400, seeds)) <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.slow
def test_the_mean_alone_would_call_it_none_far_too_often():
    """Why the seeds are asked too: where a tenth of them fails, a third of all tens holds no failure."""
    d = 10 * MARGIN * (np.random.default_rng(0).uniform(size=(400, 10)) < 0.1)
    assert np.mean([mean_within(row, MARGIN) < 0.05 for row in d]) > 0.25
    assert claims(d) == 0


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [30, 60])
def test_a_share_of_exactly_four_fifths_within_is_not_called_most(seeds):
    draw = np.random.default_rng(1)
    outside = draw.uniform(size=(400, seeds)) < 0.2
    d = np.where(outside, 1.2 * MARGIN * draw.choice([-1, 1], outside.shape), 0.0)
    assert 0.01 < claims(d) <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5


def test_no_loss_is_found_where_there_is_none():
    assert claims(np.random.default_rng(2).normal(0, MARGIN / 4, (200, 20))) > 0.95


def seldom(seeds: int, studies: int = 1000) -> Array:
    """A tenth of all seeds fails at ten margins, so that the true mean is just the margin."""
    draw = np.random.default_rng(0)
    failed = draw.uniform(size=(studies, seeds)) < 0.1
    return 10 * MARGIN * failed + draw.normal(0, 0.1 * MARGIN, failed.shape)


@pytest.mark.slow
def test_of_seldom_and_large_failures_the_mean_is_not_guaranteed_and_the_rule_says_how_often():
    """No test of a mean can: what is guaranteed is the share of seeds."""
    at_most_one = 0.9**30 + 30 * 0.1 * 0.9**29
    assert at_most_one == pytest.approx(0.18, abs=0.005)
    within = 3.3 * (at_most_one * (1 - at_most_one) / 1000) ** 0.5
    assert claims(seldom(30)) == pytest.approx(at_most_one, abs=within)
    assert np.mean([no_worse(row, MARGIN) < 0.05 for row in seldom(30)]) == pytest.approx(at_most_one, abs=within)
    assert "18 %" in RULE["guarantee"] and "p_lossless" in RULE["lossless"]


@pytest.mark.parametrize("size", [1.2, 10, 1000])
def test_the_share_of_seeds_that_lose_no_more_than_the_margin_is_guaranteed_however_much_the_others_lose(size):
    draw = np.random.default_rng(1)
    failed = draw.uniform(size=(400, 30)) < 0.2
    loss = np.where(failed, size * MARGIN, -MARGIN)
    assert np.mean([no_worse(row, MARGIN) < 0.05 for row in loss]) <= 0.05 + 2.6 * (0.05 * 0.95 / 400) ** 0.5
