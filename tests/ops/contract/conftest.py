"""The backends that have to keep the contract."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import pytest

from contract.cases import BACKENDS, kernels_built
from dsa.ops import blocked, native, reference
from dsa.ops.blocked import tiles as tiles_of_blocked

attending = importlib.import_module("dsa.ops.native.attend")  # the package names a function as it names the module


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Each backend; the kernels also as built for lesser processors, and on std::thread instead of OpenMP."""
    if request.param == "reference":
        yield reference
    elif request.param == "blocked":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles_of_blocked, "TILE", 2000)  # many blocks
            patch.setattr(tiles_of_blocked, "WIDTH", 16)
            yield blocked
    else:
        with kernels_built(request.param):
            yield native


@pytest.fixture(scope="module")
def tiles(backend: ModuleType) -> Callable[[bool], AbstractContextManager[object]]:
    """Lets the kernels meet their keys in many small tiles."""

    @contextmanager
    def small(wanted: bool) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if wanted:
                patch.setattr(attending, "tile_keys", lambda keys, *_: max(1, min(keys, 4)))
            yield

    return small
