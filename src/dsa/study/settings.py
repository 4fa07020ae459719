"""Settings that no run could be trained with, found without data, weights or a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dsa import ops
from dsa.spec import Spec
from dsa.training.errors import expected


def check_settings(spec: Spec) -> None:
    """Refuse what cannot be trained at any length; indexer, pattern and selector have checks of their own.

    Raises:
        ValueError: one sentence that names the setting, what it got and what is allowed.
    """
    ops.checked_backend(spec.ops)
    for group in ("precision", "objective", "logger"):
        with named(spec, group):
            getattr(spec, group).make()
    with named(spec, "optimizer"):
        spec.optimizer.make()([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}])
    with named(spec, "model"), torch.device("meta"):  # sizes alone: no memory
        spec.model.make(vocab_size=1, seed=0)


@contextmanager
def named(spec: Spec, group: str) -> Iterator[None]:
    """Name the group where an error comes from somewhere that knows nothing of settings.

    Raises:
        ValueError: in place of any other error of that kind.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) and expected(error):
            raise
        option = getattr(spec, group).option
        raise ValueError(f"{group} = {option}: {str(error).strip().splitlines()[0]}") from error
