"""The GPU backend: Triton kernels that touch only what was selected, in float32.

Definitions are those of `dsa.ops.reference`. No sum needs atomics, so the same call gives the same bits. With
`TRITON_INTERPRET=1` in the environment Triton's interpreter computes the same on the CPU, to test it.

Indexer losses are those of `blocked`, in PyTorch on the device: `covers` refuses them, so that dispatch tells.
"""

import torch

from dsa.ops.blocked import indexer_loss, indexer_losses
from dsa.ops.contracts import Call
from dsa.ops.triton import sizes
from dsa.ops.triton.attend import attend, attend_with_target, dense_logsumexp
from dsa.ops.triton.launch import device_type, interpreted, unavailable
from dsa.ops.triton.select import select

__all__ = [
    "attend",
    "attend_with_target",
    "covers",
    "dense_logsumexp",
    "indexer_loss",
    "indexer_losses",
    "integer_products",
    "name",
    "select",
    "selected_only",
]

name, selected_only = "triton", not interpreted()  # an interpreter's times are no speed
NARROW = torch.float32, torch.bfloat16, torch.float16


def integer_products() -> bool:
    """In float32, which is exact."""
    return False


def covers(call: Call) -> str | None:
    """CUDA tensors of at most 32 bits, heads of at most 256 dims, selection of single tokens without a trim rule; no
    indexer loss."""
    if (reason := unavailable()) is not None:
        return reason
    tensors = (*call.tensors, *(call.scorer.tensors if call.scorer else ()))
    devices = {x.device.type for x in tensors} | ({call.device.type} if call.device else set())
    wide = {str(x.dtype).removeprefix("torch.") for x in tensors if x.dtype not in NARROW}
    dim = max((x.shape[-1] for x in call.tensors if x.dim() == 4), default=0)
    if other := devices - {device_type()}:
        return f"the Triton kernels compute on CUDA devices, not on {min(other)}."
    if wide:
        return f"the Triton kernels compute in float32, not in {min(wide)}."
    if call.learner is not None:
        return "the Triton kernels know no indexer loss."
    if dim > sizes.HEAD_DIM:
        return f"the Triton kernels attend with heads of at most {sizes.HEAD_DIM} dims, not {dim}."
    if call.scorer is not None and call.scorer.unit > 1:
        return "the Triton kernels select token by token, not by units of several."
    if call.trims:
        return "the Triton kernels keep no statistics of a row for a trim rule."
    return None
