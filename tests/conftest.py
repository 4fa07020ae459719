"""What tests share: the options of a group, small configurations. Fixtures for all tests are in prepared.py."""

import os
import sys

import pytest
from omegaconf import OmegaConf

SMALL = [
    "model.d_model=32",
    "model.layers=2",
    "model.heads=2",
    "model.ff=64",
    "data=mqar",
    "data.batch_size=4",
    "data.eval_batch_size=4",
    "data.eval_batches=2",
    "seq_len=64",
]
QUIET = ["logger=csv", "callbacks=quiet"]

HANDS_OUT = "--numprocesses" in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ
"""Whether this is the process of `make test` that runs no test itself: those that do wait until it is there."""
pytest_plugins = [] if HANDS_OUT else ["prepared"]  # before the conftest.py of any folder imports what is checked


def pytest_configure(config: pytest.Config) -> None:
    """No test runs unprepared."""
    if HANDS_OUT and getattr(config.option, "dist", "no") == "no":
        raise pytest.UsageError("--numprocesses 0: leave it away, or say -n 0.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train something or start processes come first: what is left at the end, a file a process, is short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def options(group: str) -> list[str]:
    """Names of a group's options: a new yaml is a new test."""
    from dsa.config import config_dir

    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


STANDING = {"by_length"}  # it is no indexer: tests/indexers/test_by_length.py


def indexers() -> list[str]:
    """Names of the options that are indexers themselves."""
    return [name for name in options("indexer") if name not in STANDING]


def fitting(group: str, name: str) -> list[str]:
    """An option, with blocks of which several lie in the rows of SMALL."""
    from dsa.config import config_dir

    short = {"unit": 4, "block": 4, "blocks": 4, "reach": 8, "far": 12}
    settings = OmegaConf.load(config_dir() / group / f"{name}.yaml")
    if group == "indexer":
        short["prefix"] = 16
    return [f"{group}={name}", *(f"{group}.{key}={value}" for key, value in short.items() if key in settings)]
