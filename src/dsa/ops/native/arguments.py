"""How tensors reach the kernels: structures of addresses, strides and sizes, and memory to work in."""

import ctypes
import functools
import threading
from typing import Any

import torch
from torch import Tensor

from dsa.ops.compiler import library
from dsa.ops.contracts import Selection

i64, pointer = ctypes.c_int64, ctypes.c_void_p


class Heads(ctypes.Structure):
    _fields_ = [("data", pointer), ("batch", i64), ("head", i64), ("time", i64)]


def structure(name: str, fields: str, **types: Any) -> type[ctypes.Structure]:
    """A C structure with these fields in order: int64 unless named in `types`; `*x` is a pointer."""
    parts = [(f.lstrip("*"), pointer if f.startswith("*") else types.get(f, i64)) for f in fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": parts})


def loaded(source: str, structures: tuple[type[ctypes.Structure], ...], **constants: int) -> ctypes.CDLL:
    """The kernels of one source file, whose structures are those of Python, as far as sizes tell.

    Args:
        structures: in the order in which the source numbers them.

    Raises:
        RuntimeError: one has another size there.
    """
    kernels = library(source, **constants)
    check_sizes(kernels, source, structures)
    return kernels


@functools.cache
def check_sizes(kernels: ctypes.CDLL, source: str, structures: tuple[type[ctypes.Structure], ...]) -> None:
    for number, each in enumerate(structures):
        wanted = call(kernels.size_of, i64(number))
        if ctypes.sizeof(each) != wanted:
            here = f"{each.__name__} has {ctypes.sizeof(each)} bytes here"
            raise RuntimeError(f"{source}: {here} and {wanted} in the kernels; the two declarations differ.")


def heads(x: Tensor) -> Any:
    return Heads(x.data_ptr(), *x.stride()[:3])


def address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def single(x: Tensor) -> Tensor:
    """In float32 with the last dimension dense: what the kernels read without a copy."""
    x = x.detach().float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def kernel_indices(selection: Selection) -> tuple[Tensor, Tensor]:
    """Positions and counts as the kernels read them."""
    return selection.positions.int().contiguous(), selection.counts.int().contiguous()


def call(function: Any, *args: Any, result: Any = i64) -> Any:
    function.restype = result
    return function(*args)


@functools.lru_cache(maxsize=1024)
def asked(kernels: ctypes.CDLL, name: str, *sizes: int) -> int:
    """What a kernel answers about sizes: always the same."""
    return call(getattr(kernels, name), *map(i64, sizes))


class Workspace(threading.local):
    """Memory that a kernel works in for the length of a call, kept by the thread for the next.

    Otherwise the system hands out fresh pages at every call, which shows at short lengths.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def take(self, name: str, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """At least `size` elements, with whatever was left in them."""
        kept = self.kept.get(name)
        if kept is None or kept.numel() < size:
            self.kept[name] = kept = torch.empty(size, dtype=dtype)
        return kept

    def release(self) -> None:
        self.kept.clear()


workspace = Workspace()


def scratch(kernels: ctypes.CDLL, name: str, threads: int, *sizes: int) -> tuple[Tensor, int]:
    """Working memory for every thread, as a tensor so that it is counted."""
    size = asked(kernels, name, *sizes)
    return workspace.take("scratch", threads * size), size


def tile_keys(keys: int, dim: int, rows: int, size: int) -> int:
    """How many keys a tile of `size` bytes holds, each with `rows` rows of `dim` floats."""
    return min(keys, max(256, size // (rows * 4 * (-(-dim // 16) * 16))))


SHARED = 1 << 19
"""Numbers that a thread is given of one query at least: to wait for another takes longer than to read fewer."""


def units(rows: int, threads: int, most: int) -> int:
    """Into how many parts each of `rows` equal pieces of work is cut so that the threads end together."""
    if rows % threads == 0 or rows >= 4 * threads:
        return 1
    return max(1, min(-(-2 * threads // rows), most))
