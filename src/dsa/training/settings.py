"""Settings that no run could be trained with, found without data, weights or a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry
from pytorch_lightning.strategies import StrategyRegistry
from torch import nn

from dsa.build import build_backbone
from dsa.checks import one_of
from dsa.ops import checked_backend
from dsa.spec import Part, Spec
from dsa.training.errors import expected


def check_settings(spec: Spec) -> None:
    """Refuse what cannot be trained at any length.

    Indexer, pattern, selector and data are made by whoever knows the length.

    Raises:
        ValueError: one sentence that names the setting, what it got and what is allowed.
    """
    for part in (spec.pattern, spec.selector, spec.data):
        part.check()
    for part in (spec.precision, spec.objective, spec.logger):
        with named(part):
            part.make()
    with named(spec.optimizer):
        spec.optimizer.make()([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}])
    with named(spec.model), torch.device("meta"):  # sizes alone: no memory, no drawing of weights
        build_backbone(spec, vocab_size=1)
    checked_backend(spec.ops)
    one_of(
        spec.trainer.accelerator,
        ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())),
        "trainer.accelerator",
    )
    if spec.trainer.strategy not in ("auto", *StrategyRegistry.available_strategies()):
        raise ValueError(f"trainer.strategy = {spec.trainer.strategy}: give auto, ddp, fsdp or another of Lightning's.")


@contextmanager
def named(part: Part) -> Iterator[None]:
    """Name the option where an error comes from somewhere that knows nothing of settings.

    Raises:
        ValueError: in place of any other error of that kind.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and expected(error):
            raise
        raise ValueError(f"{part.slot} = {part.option}: {str(error).strip().splitlines()[0]}") from error
