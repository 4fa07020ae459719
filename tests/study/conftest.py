"""A study of two indexers and four controls at one length and seed, judged with the backbone untouched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dsa.study.plan import StudyPlan
from study.studies import TINY, plans_of


@pytest.fixture
def tiny(outputs: Path) -> Callable[..., list[StudyPlan]]:
    """Plans it, below this test's folder, with more overrides."""

    def plan(*more: str, judge: str = "swap") -> list[StudyPlan]:
        return plans_of("name=tiny", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}", *more, judge=judge)

    return plan
