"""What several files look at: a finished run, the base of all cohorts, and members trained by themselves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsa import compose, train
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import Store
from dsa.training.base import make_base
from dsa.training.dashboard import Dashboard
from training.cohorts import make, rows, weights, wishes_of
from training.whole_runs import RUN


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """One finished run that the tests compare with; they may add others beside it."""
    return train(compose([*RUN, f"output_dir={tmp_path_factory.mktemp('whole')}"]))


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder that holds the base of all cohorts alone."""
    outputs = tmp_path_factory.mktemp("untouched")
    ((spec, need),), data = wishes_of([["indexer=h1d8"]], outputs)
    make_base(Store(outputs), spec, need.base, data, Dashboard(spec, "base", "dense", "base", silent=True))
    return outputs


@pytest.fixture(scope="session")
def alone(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Any]:
    """Weights of a member, and the rows of its record, trained by itself."""
    found = {}

    def of(member):
        key = tuple(member)
        if key not in found:
            outputs = shutil.copytree(untouched, tmp_path_factory.mktemp("alone") / "outputs")
            (wish,), data = wishes_of([member], outputs)
            assert make([wish], data) == {}
            found[key] = weights(wish), rows(wish)
        return found[key]

    return of


@pytest.fixture
def based(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it, to train in."""
    return shutil.copytree(untouched, tmp_path / "outputs")
