"""A plugin for the processes in which tests run: annotations are checked, what each run reads is read once, runs have a
folder of their own.
"""

import functools
import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jaxtyping
import pytest
import torch
from jaxtyping import config, install_import_hook
from lightning_fabric.utilities import registry
from typed import checked_calls, first_of_a_kind

jaxtyping.jaxtyped = first_of_a_kind  # what the hook below puts around every function
TYPED = ["ops", "indexers", "patterns", "selectors", "precision", "backbones", "judging", "inspection", "data"]
install_import_hook([f"dsa.{package}" for package in TYPED], "typed.checked")  # shapes are checked at every call
install_import_hook(["dsa.training"], "typed.of_tensors")  # a stand-in may serve for anything else there

import composed  # noqa: E402
import parsed_once  # noqa: E402, F401  (it changes how Hydra reads)

from dsa import config as configurations  # noqa: E402
from dsa.ops.compiler import cache_folder  # noqa: E402

configurations.compose = composed.compose
registry.entry_points = functools.cache(registry.entry_points)  # each Trainer reads all that is installed
os.fsync = lambda fd: None  # nobody cuts the power here, and of what was written a kill takes nothing back
THREADS = min(2, torch.get_num_threads())
torch.set_num_threads(THREADS)


def pytest_collection_finish() -> None:
    """Collections need not look again and again at what was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_threads_after_each_test() -> Iterator[None]:
    """A test may change how many threads torch uses; the next one starts with what the command gave."""
    yield
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def first_calls_of_each_test_are_checked() -> None:
    checked_calls.clear()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all runs of the tests, whichever process they run in; the kernels in it are the user's own, which
    are found by the hash of their source."""
    own = tmp_path_factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    (shared / "dsa").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (shared / "dsa" / "kernels").symlink_to(cache_folder(), target_is_directory=True)
    return shared


@pytest.fixture
def untyped() -> Iterator[None]:
    """For tests that hand over what an annotation rules out, to see what is said where nobody checks annotations."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def outputs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs, with no account anywhere, and nothing of the user's but the kernels."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return tmp_path / "outputs"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bootstrap draws, for tests of what an analysis says of its intervals."""
    monkeypatch.setattr("dsa.analysis.statistics.intervals.RESAMPLES", 99)
