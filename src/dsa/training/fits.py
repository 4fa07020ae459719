"""Whether a run fits into the memory of this machine, known before anything is read or trained."""

import math
from collections.abc import Sequence
from dataclasses import replace

import psutil
import torch

from dsa.backbones import Size
from dsa.spec import Spec

STEP = 64  # tokens to which a length that is proposed is rounded down


def too_large(spec: Spec) -> str | None:
    """The reason if training needs more memory than this machine has."""
    need, have = memory_needed(spec), memory_here(spec)
    if need <= have:
        return None
    return f"training needs about {need / 2**30:.0f} GB, this machine has {have / 2**30:.0f}"


def too_many(specs: Sequence[Spec], workers: int) -> str | None:
    """The reason if the largest of these runs, as many at once as there are workers, need more memory than is free."""
    at_once = min(workers, len(specs))
    if at_once < 2:
        return None
    need, spec = max(((memory_needed(spec), spec) for spec in specs), key=lambda found: found[0])
    have = memory_free(spec)
    if need * at_once <= have:
        return None
    fitting = max(1, int(have / need))
    all_need = f"{at_once} jobs at once need up to {need * at_once / 2**30:.1f} GB of memory"
    return f"{all_need}, {have / 2**30:.1f} are free here: {fitting} at once would fit."


def check_room(spec: Spec) -> None:
    """Refuse a pretrained model for which less memory is free now than it needs, before it is read.

    Raises:
        ValueError: saying what would fit.
    """
    if not spec.given or (need := memory_needed(spec)) <= (have := memory_free(spec)):
        return
    setting = f"model.path = {spec.model.node['path']}" if "path" in spec.model.node else f"model = {spec.model.option}"
    raise ValueError(
        f"{setting}: with seq_len = {spec.seq_len} and data.eval_batch_size = {eval_rows(spec)} it needs about "
        f"{need / 2**30:.1f} GB of memory, and {have / 2**30:.1f} are free. {what_fits(spec, have)}"
    )


def what_fits(spec: Spec, have: float) -> str:
    """Which settings need no more than so much memory [bytes]."""
    ways = []
    if eval_rows(spec) > 1 and memory_needed(of_rows(spec, 1)) <= have:
        fitting = max(rows for rows in range(1, eval_rows(spec)) if memory_needed(of_rows(spec, rows)) <= have)
        ways.append(f"data.eval_batch_size={fitting}")
    lengths = [length for length in range(STEP, spec.seq_len, STEP) if memory_needed(of_length(spec, length)) <= have]
    if lengths:
        ways.append(f"seq_len={lengths[-1]}")
    if ways:
        return f"{' or '.join(ways)} would fit."
    least = memory_needed(of_length(of_rows(spec, 1), STEP))
    return f"Even data.eval_batch_size=1 seq_len={STEP} needs {least / 2**30:.1f} GB: give a smaller model."


def of_length(spec: Spec, length: int) -> Spec:
    """The same with rows of another length."""
    return replace(spec, seq_len=length)


def of_rows(spec: Spec, rows: int) -> Spec:
    """The same with other evaluation batches."""
    return replace(spec, data=replace(spec.data, node=spec.data.node | {"eval_batch_size": rows}))


def eval_rows(spec: Spec) -> int:
    """Rows of an evaluation batch."""
    rows = spec.data.node.get("eval_batch_size")
    return int(spec.data.node["batch_size"] if rows is None else rows)


def size_of(spec: Spec) -> Size:
    """How large the backbone is."""
    size: Size = spec.model.cls.size(spec.model.node)
    return size


def memory_needed(spec: Spec) -> float:
    """Memory of training, about [bytes]: weights, gradients and two moments; activations; a layer's attention; logits.

    A backbone that is only judged needs its weights, one layer's activations at a time, and the logits of a batch three
    times over, of which its loss is made. Where a layer has experts, a pass copies for each token those that it goes
    through, so that no token's numbers depend on others'.
    """
    size, rows = size_of(spec), math.ceil(spec.data.node["batch_size"] / spec.trainer.accumulate)
    learns = spec.recipe.dense_steps > 0 or spec.recipe.sparse_steps > 0
    rows = rows if learns else max(rows, eval_rows(spec))
    held = size.layers if learns and not spec.memory.checkpoint else 1
    width = size.width * 14 + size.ff * 4
    activations = 4 * rows * spec.seq_len * (width * held + size.width * size.layers)
    attention = 4 * rows * size.heads * spec.seq_len * min(spec.seq_len, 1024) * 4
    logits = (8 if learns else 12) * rows * spec.seq_len * size.vocab
    experts = 4 * rows * spec.seq_len * size.routed * held
    return (16 if learns else 5) * size.parameters + activations + attention + logits + experts


def memory_here(spec: Spec) -> float:
    """Memory of the device that this machine would train on [bytes]."""
    if on_gpu(spec):
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def memory_free(spec: Spec) -> float:
    """What of it nobody uses now [bytes]."""
    if on_gpu(spec):
        return torch.cuda.mem_get_info(0)[0]
    return psutil.virtual_memory().available


def on_gpu(spec: Spec) -> bool:
    """Whether this machine would train on a GPU."""
    return torch.cuda.is_available() and spec.trainer.accelerator in ("auto", "gpu", "cuda")
