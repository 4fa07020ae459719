"""The backends that have to keep the contract, and what the kernels are built for."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import pytest

from dsa.ops import blocked, compiler, native, reference
from dsa.ops.blocked import tiles as tiles_of_blocked

attending = importlib.import_module("dsa.ops.native.attend")  # the package names a function as it names the module
BUILDS = ["-march=haswell", "-march=x86-64", "threads", "-mno-amx-bf16"]


@pytest.fixture(
    params=["reference", "blocked", "cpu", *(pytest.param(build, marks=pytest.mark.slow) for build in BUILDS)],
    scope="module",
)
def backend(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Each backend; the kernels also as built for lesser processors, and on std::thread instead of OpenMP."""
    if request.param == "reference":
        yield reference
        return
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "blocked":
            patch.setattr(tiles_of_blocked, "TILE", 2000)  # many blocks
            patch.setattr(tiles_of_blocked, "WIDTH", 16)
            yield blocked
            return
        if native.unavailable() is not None:
            pytest.skip(str(native.unavailable()))
        if request.param == "threads":
            patch.setattr(compiler, "torch_has_openmp", lambda: False)
        elif request.param != "cpu":
            if "avx2" not in compiler.processor():
                pytest.skip("this processor does not run the code of x86 processors with AVX2")
            patch.setenv("CXXFLAGS", request.param)
        compiler.library.cache_clear()
        yield native
    compiler.library.cache_clear()


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
