"""What runs took, as a sweep tells it when it ends."""

import re
import time

import pytest

from dsa.study.estimate import trained_since
from dsa.study.tell import show_time
from study.studies import drive


@pytest.mark.slow
def test_the_time_of_the_runs_is_told_beside_that_of_the_whole(tiny, outputs, capsys):
    (plan,) = plans = tiny()
    began = time.time()
    assert drive(plans, outputs).status == 0
    whole, runs = time.time() - began, plan.applicable
    took = trained_since(runs, began)
    assert len(took) == len(runs)
    assert 0.5 * whole < sum(took) <= whole
    assert trained_since(runs, time.time()) == [], "runs of an earlier sweep do not count"
    capsys.readouterr()
    show_time(runs)
    assert re.search(rf"in all; the {len(runs)} runs trained now took .*, \d+ % of that", capsys.readouterr().out)
