"""Whether a condition means anything at a length, and if not, why not."""

import math

import psutil
import torch
from jaxtyping import Int
from omegaconf import DictConfig
from torch import Tensor

from dsa.build import instantiate, needs_indexer
from dsa.config import check_targets, choice
from dsa.ops import by_group
from dsa.selectors import Dense, Selector, SelectorContext


def obstacle(cfg: DictConfig) -> str | None:
    """Why this configuration cannot say anything at its length; None if it can.

    Raises:
        ValueError: its pattern or selector is impossible in itself.
    """
    return too_wide(cfg) or too_large(cfg)


def check_indexer(cfg: DictConfig, label: str) -> None:
    """Refuse a condition whose indexer cannot be made at all.

    Raises:
        ValueError: naming the condition and its option.
    """
    if not needs_indexer(cfg):
        return
    check_targets(cfg)
    try:
        instantiate(cfg.indexer)
    except (TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"condition {label}, indexer={choice(cfg, 'indexer')}: {first}") from error


def too_wide(cfg: DictConfig) -> str | None:
    """The reason if every query keeps all its keys, or the pattern forces all that a query may keep."""
    pattern, selector = instantiate(cfg.pattern), instantiate(cfg.selector)
    if isinstance(selector, Dense):
        return None
    last = torch.tensor([[cfg.seq_len - 1]])
    visible = pattern.visible(last)
    kept = least(selector, SelectorContext(last, visible, pattern.own_budget(last)))
    keeps, most = int(kept.min()), int(kept.max())
    forced = max(
        sum(int(zone.span(last)[1].sum()) for zone in zones if zone.forced) for zones in by_group(pattern.zones())
    )
    if keeps >= cfg.seq_len:
        return f"window and budget reach the length: {keeps} keys of {cfg.seq_len}, so attention is dense"
    if most <= forced and int(visible.max()) > forced:
        return f"the pattern's {forced} forced keys use up the budget of {most}: nothing is left to choose"
    return None


def least(selector: Selector, context: SelectorContext) -> Int[Tensor, "1 group 1"]:
    """Keys that the last query keeps; for a rule that sees scores or is calibrated, its lower bound."""
    if selector.trims or selector.calibrates:
        return context.visible.clamp(max=int(getattr(selector, "min_k", 1)))
    return selector.limit(context)


def too_large(cfg: DictConfig) -> str | None:
    """The reason if training needs more memory than this machine has."""
    need, have = memory_needed(cfg), memory_here(cfg)
    if need <= have:
        return None
    return f"training needs about {need / 2**30:.0f} GB, this machine has {have / 2**30:.0f}"


def parameters(cfg: DictConfig, vocab: int = 256) -> int:
    """Parameters of the backbone, about."""
    model = cfg.model
    return model.layers * (4 * model.d_model**2 + 2 * model.d_model * model.ff) + vocab * model.d_model


def memory_needed(cfg: DictConfig) -> float:
    """Memory of training, about [bytes]: weights, gradients and two moments; activations; a layer's attention."""
    model, rows = cfg.model, math.ceil(cfg.data.batch_size / cfg.trainer.accumulate)
    width = model.d_model * 14 + model.ff * 4
    kept = model.layers if not model.checkpointing else 1
    activations = 4 * rows * cfg.seq_len * (width * kept + model.d_model * model.layers)
    attention = 4 * rows * model.heads * cfg.seq_len * min(cfg.seq_len, 1024) * 4
    return 16 * parameters(cfg) + activations + attention


def memory_here(cfg: DictConfig) -> float:
    """Memory of the device that this machine would train on [bytes]."""
    if torch.cuda.is_available() and cfg.trainer.accelerator in ("auto", "gpu", "cuda"):
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total
