"""The backends that have to keep the contract."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

import pytest

from contract.cases import BACKENDS, GPU, kernels_built
from contract.dispatched import Dispatched
from dsa.ops import blocked, native, reference, triton
from dsa.ops.blocked import tiles as tiles_of_blocked
from dsa.ops.triton import sizes
from dsa.ops.triton.launch import interpreted, unavailable

attending = importlib.import_module("dsa.ops.native.attend")  # the package names a function as it names the module


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[ModuleType | Dispatched]:
    """Each backend; the kernels also as built for lesser processors, and on std::thread instead of OpenMP.

    Triton's kernels are tried alone, in a process of their own: interpreted, or on a GPU.
    """
    if request.param == "reference":
        yield reference
    elif request.param == "blocked":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tiles_of_blocked, "TILE", 2000)  # many blocks
            patch.setattr(tiles_of_blocked, "WIDTH", 16)
            yield blocked
    elif request.param == "triton":
        if (reason := unavailable()) is not None:
            pytest.skip(reason)
        with pytest.MonkeyPatch.context() as patch:
            if interpreted():  # few programs, each of which costs milliseconds
                for name, size in {"ROWS": 64, "KEYS": 64, "TILE": 64, "SPAN": 1024, "SCORES": 25_000}.items():
                    patch.setattr(sizes, name, size)
                spare_what_is_patched(patch)
            yield Dispatched(triton, GPU)
    else:
        with kernels_built(request.param):
            yield native


def spare_what_is_patched(patch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter replaces what `tl` holds when a kernel is launched, and looks for it all again whenever the
    kernel calls a function, a quarter of its time, to find that nothing is left to be replaced."""
    from triton import language
    from triton.runtime import interpreter

    replace = interpreter._patch_lang

    def replaced_once(function: Callable[..., object]) -> object:
        holders = (x for x in function.__globals__.values() if x is language or x is language.core)
        if any(language.core.is_builtin(holder.load) for holder in holders):
            return replace(function)
        return interpreter._LangPatchScope()

    patch.setattr(interpreter, "_patch_lang", replaced_once)


@pytest.fixture(scope="module")
def tiles(backend: ModuleType | Dispatched) -> Callable[[bool], AbstractContextManager[object]]:
    """Lets the kernels meet their keys in many small tiles."""

    @contextmanager
    def small(wanted: bool) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if wanted:
                patch.setattr(attending, "tile_keys", lambda keys, *_: max(1, min(keys, 4)))
            yield

    return small
