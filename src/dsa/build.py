"""From a configuration to the objects it names."""

from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from dsa.config import check_targets
from dsa.data import DataModule
from dsa.model import SparseTransformer


def instantiate(node: DictConfig, **arguments: Any) -> Any:
    """Hydra's instantiate with plain lists and dictionaries, and with the object's own error instead of Hydra's."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        own: BaseException = error
        while isinstance(own, InstantiationException) and own.__cause__ is not None:
            own = own.__cause__
    raise own  # out here, or Python would chain it to Hydra's error, whose cause it is: a circle


def build_data(cfg: DictConfig) -> DataModule:
    """The data that a configuration names, prepared."""
    check_targets(cfg)
    return instantiate(cfg.data)


def build_model(cfg: DictConfig, vocab_size: int | None = None) -> SparseTransformer:
    """The model that a configuration describes, with its initial weights.

    Args:
        vocab_size: of the data; None asks the data.
    """
    check_targets(cfg)
    vocab = build_data(cfg).vocab_size if vocab_size is None else vocab_size
    return instantiate(
        cfg.model,
        vocab_size=vocab,
        pattern=instantiate(cfg.pattern),
        precision=instantiate(cfg.precision),
        selector=lambda: instantiate(cfg.selector),
        indexer=(lambda: instantiate(cfg.indexer)) if needs_indexer(cfg) else None,
        backend=cfg.ops,
        seed=cfg.seed,
    )


def needs_indexer(cfg: DictConfig) -> bool:
    """Whether some stage ranks keys by an indexer: not in dense training, and not under a control."""
    sparse = cfg.recipe.warmup.steps > 0 or cfg.recipe.sparse.steps > 0
    selector: Any = hydra.utils.get_class(cfg.selector._target_)
    return sparse and selector.uses_indexer
