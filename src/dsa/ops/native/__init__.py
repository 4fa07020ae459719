"""The fused CPU backend: C++ kernels (ops/kernels), compiled on first use, that touch only what was selected.

Definitions are those of `dsa.ops.reference`; arithmetic is float32 whatever the inputs' dtype. On processors with a
matrix unit (AMX) the gradients of densely selected blocks are summed from split bf16, to a relative error of 1e-5.
"""

import functools

import torch
from torch import Tensor

from dsa.ops.compiler import NoCompiler, library
from dsa.ops.contracts import IndexFeatures, Scorer, TrueAttention
from dsa.ops.native.arguments import workspace
from dsa.ops.native.attend import attend, attend_with_target
from dsa.ops.native.cohort import indexer_losses
from dsa.ops.native.loss import indexer_loss
from dsa.ops.native.select import dense_logsumexp, select

__all__ = [
    "attend",
    "attend_with_target",
    "dense_logsumexp",
    "indexer_loss",
    "indexer_losses",
    "select",
    "supports",
    "unavailable",
    "workspace",
]


@functools.cache
def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, and how to change that; None if they can."""
    try:
        library("select.cpp", SCORER=3)
    except NoCompiler as error:
        return str(error)
    return None


def supports(given: Scorer | Tensor | torch.device) -> bool:
    """Whether these kernels cover a scorer or a tensor: on the CPU, float32 or narrower, accumulated in float32."""
    if isinstance(given, torch.device):
        return given.type == "cpu"
    if isinstance(given, Tensor):
        return given.device.type == "cpu" and given.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if isinstance(given, IndexFeatures):
        return given.accumulate == torch.float32 and supports(given.queries) and supports(given.keys)
    if isinstance(given, TrueAttention):
        return supports(given.queries) and supports(given.keys)
    return True
