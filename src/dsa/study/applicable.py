"""Whether a condition means anything at a length, and if not, why not."""

import math

import psutil
import torch
from jaxtyping import Int
from torch import Tensor

from dsa.backbones import Size
from dsa.build import build_indexer, numbers_of_indexers
from dsa.ops import by_group
from dsa.ops.zones import first_forced
from dsa.patterns import Pattern
from dsa.selectors import Dense, Selector, SelectorContext
from dsa.spec import Spec
from dsa.training.rehearsal import rehearse_budget, sites_of
from dsa.training.variants import VariantFault


def obstacle(spec: Spec) -> str | None:
    """Why this run cannot say anything at its length; None if it can.

    Raises:
        ValueError: its pattern or selector is impossible in itself.
    """
    return too_wide(spec) or too_coarse(spec) or too_large(spec)


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


def too_wide(spec: Spec) -> str | None:
    """The reason if every query keeps all its keys, or the pattern forces all that a query may keep."""
    if not spec.sparse or issubclass(spec.selector.cls, Dense):
        return None
    pattern, selector = spec.pattern.make(), spec.selector.make()
    last = torch.tensor([[spec.seq_len - 1]])
    visible = pattern.visible(last)
    kept = least(selector, SelectorContext(last, visible, pattern.own_budget(last)))
    keeps, most = int(kept.min()), int(kept.max())
    forced = forced_keys(pattern, last)
    if keeps >= spec.seq_len:
        return f"window and budget reach the length: {keeps} keys of {spec.seq_len}, so attention is dense"
    if most <= forced and int(visible.max()) > forced:
        return f"the pattern's {forced} forced keys use up the budget of {most}: nothing is left to choose"
    return None


def too_coarse(spec: Spec) -> str | None:
    """The reason if what a query keeps anyway can leave its budget no room for one of the indexer's blocks."""
    if not spec.sparse or not spec.uses_indexer:
        return None
    with torch.device("meta"):
        indexer = build_indexer(spec, sites_of(spec)[0])
    if indexer.unit == 1:
        return None
    pattern, selector, own = spec.pattern.make(), spec.selector.make(), indexer.forced
    last = torch.arange(spec.seq_len)[None, -indexer.unit :]  # one of them has the most that is kept anyway
    context = SelectorContext(last, pattern.visible(last, own), pattern.own_budget(last, own))
    budget = int(least(selector, context).max())
    taken = max(int((last + 1 - first_forced(own, last)).max()), forced_keys(pattern, last[:, -1:]))
    if budget - taken >= indexer.unit:
        return None
    return f"up to {taken} keys are kept anyway: a budget of {budget} has no room for a block of {indexer.unit} tokens"


def forced_keys(pattern: Pattern, last: Int[Tensor, "1 1"]) -> int:
    """Most keys that a pattern keeps for the last query, whatever is selected."""
    return max(
        sum(int(zone.span(last)[1].sum()) for zone in zones if zone.forced) for zones in by_group(pattern.zones())
    )


def least(selector: Selector, context: SelectorContext) -> Int[Tensor, "1 group time"]:
    """Keys that each query keeps; for a rule that sees scores or is calibrated, its lower bound."""
    if selector.trims or selector.calibrates:
        return context.visible.clamp(max=int(getattr(selector, "min_k", 1)))
    return selector.limit(context)


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
    width = size.width * 14 + size.ff * 4
    activations = 4 * rows * spec.seq_len * (width * (size.held if learns else 1) + size.width * size.layers)
    attention = 4 * rows * size.heads * spec.seq_len * min(spec.seq_len, 1024) * 4
    logits = 8 * rows * spec.seq_len * size.vocab
    return (16 if learns else 8) * size.parameters + activations + attention + logits


def memory_here(spec: Spec) -> float:
    """Memory of the device that this machine would train on [bytes]."""
    if torch.cuda.is_available() and spec.trainer.accelerator in ("auto", "gpu", "cuda"):
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
