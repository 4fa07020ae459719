"""What seeds can show, by the rule that decides."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from dsa.analysis.statistics.no_loss import no_loss
from dsa.analysis.statistics.power import (
    enough,
    seeds_for_no_loss,
    seeds_needed,
    smallest_p,
    visible_by_t,
    visible_effect,
)
from dsa.analysis.statistics.sign_flip import sign_flip


@pytest.mark.parametrize("comparisons", [1, 3, 13, 39])
def test_so_many_seeds_can_show_a_difference_and_one_less_cannot(comparisons):
    seeds = seeds_needed(comparisons)
    assert sign_flip(np.ones(seeds)) * comparisons <= 0.05 < sign_flip(np.ones(seeds - 1)) * comparisons
    assert enough(seeds, comparisons) and not enough(seeds - 1, comparisons)
    assert smallest_p(seeds) == sign_flip(np.ones(seeds))


@pytest.mark.parametrize("comparisons", [1, 3, 13, 39])
def test_so_many_seeds_can_show_no_loss_and_one_less_cannot(comparisons):
    seeds = seeds_for_no_loss(comparisons)
    assert no_loss(np.zeros(seeds), 1.0) * comparisons <= 0.05 < no_loss(np.zeros(seeds - 1), 1.0) * comparisons


def test_the_t_tests_formula_is_statsmodels():
    power = TTestPower()
    for seeds, comparisons in ((5, 1), (8, 1), (10, 13)):
        theirs = power.solve_power(nobs=seeds, alpha=0.05 / comparisons, power=0.8)
        assert visible_by_t(seeds, 0.05 / comparisons) == pytest.approx(theirs, rel=2e-3)


@pytest.mark.parametrize(("seeds", "comparisons"), [(8, 1), (10, 13), (10, 1), (16, 13), (25, 1)])
def test_the_visible_effect_is_seen_in_four_studies_of_five(seeds, comparisons):
    studies = np.random.default_rng(11).normal(
        visible_effect(seeds, comparisons), 1, (600 if seeds < 20 else 150, seeds)
    )
    seen = np.mean([sign_flip(row) * comparisons <= 0.05 for row in studies])
    assert seen == pytest.approx(0.8, abs=0.05 if seeds < 20 else 0.1)


def test_where_every_sign_must_agree_the_t_test_would_promise_too_much():
    """Ten seeds, 13 comparisons: only p = 2/1024 survives, so all ten have to lie on one side."""
    assert visible_effect(10, 13) > 1.25 * visible_by_t(10, 0.05 / 13)


def test_too_few_seeds_see_nothing():
    assert math.isinf(visible_effect(1)) and math.isinf(visible_effect(5)) and math.isinf(visible_effect(9, 13))
