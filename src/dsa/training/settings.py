"""Settings that no run could be trained with, found without data, weights or a step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dsa.artifacts.digest import digest
from dsa.build import build_backbone, leading
from dsa.checks import one_of
from dsa.indexers.picking import Picking
from dsa.ops import checked_backend
from dsa.spec import Part, Spec
from dsa.training.errors import expected


def check_settings(spec: Spec, met: set[str] | None = None) -> None:
    """Refuse what cannot be trained at any length.

    Indexer, pattern, selector and data are made by whoever knows the length.

    Args:
        met: hashes of parts that were found good before, which are passed over; those of this spec are added.

    Raises:
        ValueError: one sentence that names the setting, what it got and what is allowed.
    """
    met = set() if met is None else met
    for part in unmet(met, spec.pattern, spec.selector, spec.data):
        part.check()
    for part in unmet(met, spec.precision, spec.objective, spec.logger):
        with named(part):
            part.make()
    for part in unmet(met, spec.optimizer):
        with named(part):
            part.make()([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}])
    for part in unmet(met, spec.model):
        with named(part), torch.device("meta"):  # sizes alone: no memory, no drawing of weights
            build_backbone(spec, vocab_size=1)
    checked_backend(spec.ops)
    if spec.uses_indexer and spec.objective.cls.whole and spec.trainer.accumulate > 1:
        raise ValueError(
            f"trainer.accumulate = {spec.trainer.accumulate}: objective={spec.objective.option} compares the queries "
            "of a whole batch; give trainer.accumulate=1, or another objective."
        )
    if spec.uses_indexer and spec.trainer.several:
        check_alone(spec)
    if spec.uses_indexer and spec.objective.make().balance is not None:
        check_balance(spec)
    if spec.trainer.accelerator not in ("auto", "cpu", "gpu"):
        check_accelerator(spec.trainer.accelerator)
    one_of(spec.trainer.strategy, ("auto", "ddp"), "trainer.strategy")


def check_alone(spec: Spec) -> None:
    """Refuse several processes for what one alone can teach."""
    given = f"trainer.devices = {spec.trainer.devices}, trainer.num_nodes = {spec.trainer.num_nodes}"
    if spec.objective.cls.whole:
        raise ValueError(
            f"{given}: objective={spec.objective.option} compares the queries of a whole batch, of which several "
            "processes have a part each; give 1 of both, or another objective."
        )
    if issubclass(spec.indexer.cls, Picking) and spec.recipe.sparse_steps:
        raise ValueError(
            f"{given}: indexer={spec.indexer.option} picks among others, and several processes would each teach other "
            "ones; give 1 of both, or judge=swap."
        )


def check_balance(spec: Spec) -> None:
    """Refuse to balance losses of which no two teach the same parameters, or of parameters that lie in parts."""
    given, layers = f"objective.balance = {spec.objective.node['balance']}", spec.model.cls.size(spec.model.node).layers
    if len(leading(layers, spec.index_every)) == layers:
        raise ValueError(
            f"{given}: no two losses teach the same parameters where every layer has an indexer of its own; give "
            "index_every=2 or more, or objective.balance=fixed."
        )
    if spec.trainer.shard:
        raise ValueError(
            f"{given}: it needs the gradient of each loss, and every process has a part of the parameters; give "
            "trainer=ddp, or objective.balance=fixed."
        )


def unmet(met: set[str], *parts: Part) -> Iterator[Part]:
    """Parts that were not met before; now they are."""
    for part in parts:
        key = digest([part.slot, part.node, part.admitted], 32)
        if key not in met:
            met.add(key)
            yield part


def check_accelerator(name: str) -> None:
    """Refuse an accelerator that Lightning does not know."""
    from pytorch_lightning.accelerators import AcceleratorRegistry  # late: it takes seconds to import

    one_of(name, ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators())), "trainer.accelerator")


def check_device(name: str) -> None:
    """Refuse to begin a run on an accelerator that is not here; a plan may be made without it."""
    from pytorch_lightning.accelerators import AcceleratorRegistry  # late: it takes seconds to import

    here = {one for one, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()}
    if name not in ("auto", *here) and not (name == "gpu" and here & {"cuda", "mps"}):
        raise ValueError(
            f"trainer.accelerator = {name}: there is none here; give trainer.accelerator=auto, or one of "
            f"{', '.join(sorted(here))}."
        )


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
