"""Settings that no run could be trained with, found without data, weights or a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from omegaconf import DictConfig
from torch import nn

from dsa.build import build_model, instantiate
from dsa.checks import at_least, positive
from dsa.config import check_targets, choice
from dsa.training.errors import expected
from dsa.training.plan import dense_of


def check_settings(cfg: DictConfig) -> None:
    """Refuse what cannot be trained at any length; indexer, pattern and selector are left to whoever knows the length.

    Raises:
        ValueError: one sentence that names the setting, what it got and what is allowed.
    """
    check_targets(cfg)
    for name in ("val_every", "checkpoint_every"):
        positive(cfg.callbacks[name], f"callbacks.{name}")
    at_least(cfg.callbacks.maps_every, 0, "callbacks.maps_every")
    positive(cfg.trainer.accumulate, "trainer.accumulate")
    for group in ("precision", "objective", "logger"):
        with named(cfg, group):
            instantiate(cfg[group])
    with named(cfg, "optimizer"):
        instantiate(cfg.optimizer)([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}])
    with named(cfg, "model"), torch.device("meta"):  # sizes alone: no memory, no drawing of weights
        build_model(dense_of(cfg), vocab_size=1)


@contextmanager
def named(cfg: DictConfig, group: str) -> Iterator[None]:
    """Name the group where an error comes from somewhere that knows nothing of settings.

    Raises:
        ValueError: in place of any other error of that kind.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and expected(error):
            raise
        raise ValueError(f"{group} = {choice(cfg, group)}: {str(error).strip().splitlines()[0]}") from error
