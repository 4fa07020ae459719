"""The fused CPU backend: C++ kernels (ops/kernels), compiled on first use, that touch only what was selected.

Definitions are those of `dsa.ops.reference`; arithmetic is float32 whatever the inputs' dtype. On processors with a
matrix unit (AMX) the gradients of densely selected blocks are summed from split bf16, to a relative error of 1e-5.
"""

import functools

import torch

from dsa.ops.compiler import NoCompiler, library
from dsa.ops.contracts import Call
from dsa.ops.native.arguments import workspace
from dsa.ops.native.attend import attend, attend_with_target
from dsa.ops.native.cohort import indexer_losses
from dsa.ops.native.features import lightning_features
from dsa.ops.native.loss import indexer_loss
from dsa.ops.native.pack import CAPPED, multiplies, uncovered
from dsa.ops.native.select import dense_logsumexp, select

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
    "unavailable",
    "workspace",
]

name, selected_only = "cpu", True
NARROW = torch.float32, torch.bfloat16, torch.float16


@functools.cache
def unavailable() -> str | None:
    """Why these kernels cannot run on this machine, and how to change that; None if they can."""
    try:
        library("select.cpp", SCORER=3)
    except NoCompiler as error:
        return str(error)
    return None


def covers(call: Call) -> str | None:
    """CPU tensors of at most 32 bits, logits without a cap, the scorers of this package, and index features that learn
    token by token an attention of which all counts alike."""
    tensors = (
        *call.tensors,
        *(call.scorer.tensors if call.scorer else ()),
        *(call.learner.tensors if call.learner else ()),
    )
    devices = {x.device.type for x in tensors} | ({call.device.type} if call.device else set())
    wide = {str(x.dtype).removeprefix("torch.") for x in tensors if x.dtype not in NARROW}
    if call.cap is not None:
        return CAPPED
    if other := devices - {"cpu"}:
        return f"the fused kernels compute on the CPU, not on {min(other)}."
    if wide:
        return f"the fused kernels compute in float32, not in {min(wide)}."
    if call.learner is not None and call.learner.unit > 1:
        return "the fused indexer loss learns token by token, not by units of several."
    if call.emphasis:
        return "the fused indexer losses count all queries and keys alike."
    if call.learner is not None and call.learner.accumulate != torch.float32:
        return "the fused indexer losses are computed in float32 alone."
    if call.learner is not None and call.dense and call.learner.forced:
        return "the fused loss over all keys knows no forced ones."
    for scorer in (call.scorer, call.learner):
        if scorer is not None and (reason := uncovered(scorer)) is not None:
            return reason
    return unavailable()
