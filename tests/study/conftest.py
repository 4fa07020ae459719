"""A study of two indexers and four controls at one length and seed, judged with the backbone untouched."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dsa.study.plan import StudyPlan
from study.studies import TINY, plans_of


@pytest.fixture(autouse=True)
def kernels_built_once(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes of these tests share a cache: each would compile the kernels anew in a home of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def tiny(outputs: Path) -> Callable[..., list[StudyPlan]]:
    """Plans it, below this test's folder, with more overrides."""

    def plan(*more: str, judge: str = "swap") -> list[StudyPlan]:
        return plans_of("name=tiny", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}", *more, judge=judge)

    return plan
