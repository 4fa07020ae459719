"""A short storm; the long one is started by hand (tests/storm.py)."""

import pytest
from storm import storm


@pytest.mark.slow
def test_a_study_whose_sweeps_are_killed_at_random_ends_with_the_same_bits(outputs, tmp_path):
    figures = storm(tmp_path / "place", kills=2, seed=1, smaller=["seed=0", "steps=45"])
    assert figures["kills"] >= 2
