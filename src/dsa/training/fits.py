"""Whether a run fits into the memory of this machine, known before anything is read or trained."""

import math
from collections.abc import Sequence
from dataclasses import replace

import psutil
import torch

from dsa.backbones import Size
from dsa.spec import Spec

STEP = 64  # tokens to which a length that is proposed is rounded down


def too_long(spec: Spec) -> str | None:
    """The reason if the model reads no rows of this length."""
    most = size_of(spec).context
    if most is None or spec.seq_len <= most:
        return None
    return f"seq_len = {spec.seq_len}: the model reads at most {most} tokens"


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
    """Refuse rows that are too long for the model, and a pretrained model for which less memory is free now than it
    needs, before it is read.

    Raises:
        ValueError: saying what would fit.
    """
    if (reason := too_long(spec)) is not None:
        raise ValueError(f"{reason}.")
    if not spec.given or (need := memory_needed(spec)) <= (have := memory_free(spec)):
        return
    setting = f"model.path = {spec.model.node['path']}" if "path" in spec.model.node else f"model = {spec.model.option}"
    told = f"seq_len = {spec.seq_len} and data.eval_batch_size = {eval_rows(spec)}"
    if learns(spec):
        told = f"trainer.accumulate = {spec.trainer.accumulate}, {told}"
    raise ValueError(
        f"{setting}: with {told} it needs about "
        f"{need / 2**30:.1f} GB of memory, and {have / 2**30:.1f} are free. {what_fits(spec, have)}"
    )


def what_fits(spec: Spec, have: float) -> str:
    """Which settings need no more than so much memory [bytes]."""
    ways = []
    fewer = [rows for rows in range(1, eval_rows(spec)) if memory_needed(of_rows(spec, rows)) <= have]
    if fewer:
        ways.append(f"data.eval_batch_size={fewer[-1]}")
    if learns(spec):
        batch, now = spec.data.node["batch_size"], spec.trainer.accumulate
        parts = [n for n in range(now + 1, batch + 1) if batch % n == 0 and memory_needed(of_parts(spec, n)) <= have]
        ways += [f"trainer.accumulate={parts[0]}"] if parts else []
    lengths = [length for length in range(STEP, spec.seq_len, STEP) if memory_needed(of_length(spec, length)) <= have]
    if lengths:
        ways.append(f"seq_len={lengths[-1]}")
    if ways:
        return f"{' or '.join(ways)} would fit."
    least = memory_needed(of_length(of_rows(spec, 1), STEP))
    return f"Even data.eval_batch_size=1 seq_len={STEP} needs {least / 2**30:.1f} GB: give a smaller model."


def learns(spec: Spec) -> bool:
    """Whether the backbone itself does."""
    return bool(spec.recipe.dense_steps or spec.recipe.sparse_steps)


def of_parts(spec: Spec, parts: int) -> Spec:
    """The same with batches in so many parts."""
    return replace(spec, trainer=replace(spec.trainer, accumulate=parts))


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
    """Memory of a run, about [bytes]: weights, where they learn with gradients and two moments, and its larger pass.

    A backbone that learns holds every layer's activations, and a batch's logits twice over; one that is judged, or on
    which indexers learn, one layer's at a time, and the logits three times over, of which its loss is made.
    """
    rows = math.ceil(spec.data.node["batch_size"] / spec.trainer.accumulate)
    layers = size_of(spec).layers
    judged = a_pass(spec, max(rows, eval_rows(spec)), layers=1, logits=12)
    if not learns(spec):
        return 5 * size_of(spec).parameters + judged
    learned = a_pass(spec, rows, layers=1 if spec.memory.checkpoint else layers, logits=8)
    return 16 * size_of(spec).parameters + max(learned, judged)


def a_pass(spec: Spec, rows: int, layers: int, logits: int) -> float:
    """Memory of a pass beside the weights, about [bytes]: activations, a layer's attention, logits.

    Where a layer has experts, a pass copies for each token those that it goes through, so that no token's numbers
    depend on others'.

    Args:
        layers: whose activations are held at once.
        logits: bytes of each.
    """
    size, tokens = size_of(spec), rows * spec.seq_len
    width = size.width * 14 + size.ff * 4
    activations = 4 * tokens * (width * layers + size.width * size.layers)
    attention = 4 * tokens * size.heads * min(spec.seq_len, 1024) * 4
    return activations + attention + logits * tokens * size.vocab + 4 * tokens * size.routed * layers


def memory_here(spec: Spec) -> float:
    """Memory of the device that this machine would train on [bytes]."""
    if spec.trainer.on_gpu:
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def memory_free(spec: Spec) -> float:
    """What of it nobody uses now [bytes]."""
    if spec.trainer.on_gpu:
        return torch.cuda.mem_get_info(0)[0]
    return psutil.virtual_memory().available
