"""The GPU backend: Triton kernels that sum in float32, and hold no scores of all queries and keys.

Definitions are those of `dsa.ops.reference`. No sum needs atomics, so the same call gives the same bits. With
`TRITON_INTERPRET=1` in the environment Triton's interpreter computes the same on the CPU, to test it.
"""

import torch

from dsa.ops.contracts import Call
from dsa.ops.features import lightning_features
from dsa.ops.triton import sizes
from dsa.ops.triton.attend import attend, attend_with_target, dense_logsumexp
from dsa.ops.triton.features import unusual
from dsa.ops.triton.launch import device_type, interpreted, unavailable
from dsa.ops.triton.loss import indexer_loss, indexer_losses
from dsa.ops.triton.select import select

__all__ = [
    "attend",
    "attend_with_target",
    "covers",
    "dense_logsumexp",
    "indexer_loss",
    "indexer_losses",
    "lightning_features",
    "multiplies",
    "name",
    "select",
    "selected_only",
]

name, selected_only = "triton", not interpreted()  # an interpreter's times are no speed
NARROW = torch.float32, torch.bfloat16, torch.float16


def multiplies(dtype: torch.dtype) -> bool:
    """None is told: of bfloat16 the kernels round nothing that a format rounds on the way, and integers are float32."""
    return False


def covers(call: Call) -> str | None:
    """CUDA tensors of at most 32 bits, heads of at most 256 dims, and index features that learn an attention of which
    all counts alike."""
    if (reason := unavailable()) is not None:
        return reason
    tensors = [*call.tensors, *(x for own in (call.scorer, call.learner) if own is not None for x in own.tensors)]
    devices = {x.device.type for x in tensors} | ({call.device.type} if call.device else set())
    wide = {str(x.dtype).removeprefix("torch.") for x in tensors if x.dtype not in NARROW}
    heads = [x for x in call.tensors if x.dim() == 4]
    if call.learner is not None and len(heads) == 1:
        heads = []  # a target that is told as it is
    dim = max((x.shape[-1] for x in heads), default=0)
    if other := devices - {device_type()}:
        return f"the Triton kernels compute on CUDA devices, not on {min(other)}."
    if wide:
        return f"the Triton kernels compute in float32, not in {min(wide)}."
    if dim > sizes.HEAD_DIM:
        return f"the Triton kernels attend with heads of at most {sizes.HEAD_DIM} dims, not {dim}."
    if call.emphasis:
        return "the Triton indexer losses count all queries and keys alike."
    return None if call.learner is None else unusual(call.learner)
