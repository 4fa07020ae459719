"""Whether a condition means anything at a length, and if not, why not."""

import math

import psutil
import torch

from dsa.backbones import Size
from dsa.build import build_indexer, numbers_of_indexers
from dsa.spec import Spec
from dsa.training.rehearsal import rehearse_budget
from dsa.training.room import gaps_in_blocks, never_decides, too_coarse, too_wide
from dsa.training.sites import sites_of
from dsa.training.variants import VariantFault


def obstacle(spec: Spec) -> str | None:
    """Why this run cannot say anything at its length; None if it can.

    Raises:
        ValueError: its pattern or selector is impossible in itself.
    """
    about = (too_wide, never_decides, gaps_in_blocks, too_coarse, too_large)
    return next((reason for ask in about if (reason := ask(spec)) is not None), None)


def check_indexer(spec: Spec, label: str) -> None:
    """Refuse a condition whose indexer cannot be made at all.

    Raises:
        ValueError: naming the condition and its option.
    """
    if not spec.uses_indexer:
        return
    sites = sites_of(spec)
    numbers_of_indexers(sites, spec.index_every)
    try:
        build_indexer(spec, sites[0])
    except (TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"condition {label}, indexer={spec.indexer.option}: {first}") from error


def fault_of(spec: Spec) -> str | None:
    """What is wrong with the class of a pattern or selector, at any length; None if both answer as they should."""
    try:
        rehearse_budget(spec)
    except VariantFault as error:
        return str(error)
    return None


def too_large(spec: Spec) -> str | None:
    """The reason if training needs more memory than this machine has."""
    need, have = memory_needed(spec), memory_here(spec)
    if need <= have:
        return None
    return f"training needs about {need / 2**30:.0f} GB, this machine has {have / 2**30:.0f}"


def size_of(spec: Spec) -> Size:
    """How large the backbone is."""
    size: Size = spec.model.cls.size(spec.model.node)
    return size


def memory_needed(spec: Spec) -> float:
    """Memory of training, about [bytes]: weights, gradients and two moments; activations; a layer's attention.

    A backbone that is only judged needs its weights, and one layer's activations at a time.
    """
    size, rows = size_of(spec), math.ceil(spec.data.node["batch_size"] / spec.trainer.accumulate)
    learns = spec.recipe.dense_steps > 0 or spec.recipe.sparse_steps > 0
    held = size.layers if learns and not spec.memory.checkpoint else 1
    width = size.width * 14 + size.ff * 4
    activations = 4 * rows * spec.seq_len * (width * (held) + size.width * size.layers)
    attention = 4 * rows * size.heads * spec.seq_len * min(spec.seq_len, 1024) * 4
    logits = 8 * rows * spec.seq_len * size.vocab
    return (16 if learns else 8) * size.parameters + activations + attention + logits


def memory_here(spec: Spec) -> float:
    """Memory of the device that this machine would train on [bytes]."""
    if torch.cuda.is_available() and spec.trainer.accelerator in ("auto", "gpu", "cuda"):
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
