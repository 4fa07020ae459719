"""Whether the kernels run here, and how they are started."""

import functools
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from dsa.ops.triton import sizes

NO_DEVICE = "the Triton kernels need a CUDA device, and there is none here."
NOT_INSTALLED = "Triton is not installed: pip install 'dsa[gpu]', on Linux."


def interpreted() -> bool:
    """Whether Triton's interpreter computes on the CPU instead of a GPU: it is asked once, when kernels are loaded."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@functools.cache
def unavailable() -> str | None:
    """Why the kernels cannot run here; None if they can."""
    if not interpreted() and not torch.cuda.is_available():
        return NO_DEVICE
    return None if importlib.util.find_spec("triton") else NOT_INSTALLED


def device_type() -> str:
    """Where the tensors must lie."""
    return "cpu" if interpreted() else "cuda"


def launch(kernel: Any, programs: int, tensors: tuple[Tensor | None, ...], *numbers: float, **constants: Any) -> None:
    """Run so many programs of a kernel on the device of its first tensor; none if there is nothing to do."""
    first = tensors[0]
    assert first is not None
    if not programs:
        return
    with torch.cuda.device(first.device if first.is_cuda else -1):
        kernel[(programs,)](*tensors, *numbers, **constants, num_warps=sizes.warps(constants.get("DIM", 1)))


def dense_last(x: Tensor) -> Tensor:
    """With its last dimension dense, as the kernels read it; without its gradient."""
    x = x.detach()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
