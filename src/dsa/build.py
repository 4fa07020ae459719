"""From a configuration to the objects it names."""

from typing import Any

from omegaconf import DictConfig

from dsa.data import DataModule
from dsa.model import SparseTransformer
from dsa.targets import maker, slot_class


def instantiate(cfg: DictConfig, slot: str, **arguments: Any) -> Any:
    """The object that a configuration describes in a slot; an optimizer still wants its parameters.

    Args:
        slot: one of targets.SLOTS.
        arguments: what the class takes besides its settings.

    Raises:
        TargetRefused: the slot, or one inside, names something that it may not.
    """
    return maker(cfg, slot)(**arguments)


def build_data(cfg: DictConfig) -> DataModule:
    """The data that a configuration names, prepared."""
    return instantiate(cfg, "data")


def build_model(cfg: DictConfig, vocab_size: int | None = None) -> SparseTransformer:
    """The model that a configuration describes, with its initial weights.

    Args:
        vocab_size: of the data; None asks the data.
    """
    vocab = build_data(cfg).vocab_size if vocab_size is None else vocab_size
    return instantiate(
        cfg,
        "model",
        vocab_size=vocab,
        pattern=instantiate(cfg, "pattern"),
        precision=instantiate(cfg, "precision"),
        selector=maker(cfg, "selector"),
        indexer=maker(cfg, "indexer") if needs_indexer(cfg) else None,
        backend=cfg.ops,
        seed=cfg.seed,
    )


def needs_indexer(cfg: DictConfig) -> bool:
    """Whether some stage ranks keys by an indexer: not in dense training, and not under a control."""
    sparse = cfg.recipe.warmup.steps > 0 or cfg.recipe.sparse.steps > 0
    selector: Any = slot_class(cfg, "selector")
    return sparse and selector.uses_indexer
