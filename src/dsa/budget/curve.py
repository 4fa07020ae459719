"""The loss of a model at each budget, without an indexer: what one aims at, and what each must beat."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dsa.artifacts.digest import digest
from dsa.build import build_data
from dsa.judging.models import Models
from dsa.spec import Spec, compose
from dsa.training.base import make_base
from dsa.training.caveats import BELOW_UNIGRAM
from dsa.training.fits import check_room
from dsa.training.run import Run
from dsa.training.sites import sites_of
from dsa.training.work import judged, shared

logger = logging.getLogger(__name__)
SELECTORS = ("oracle", "oracle_by_head", "sink_window", "window", "random")


@dataclass(frozen=True)
class Point:
    """A selector at a budget.

    Args:
        k: keys a query.
        loss: on held-out rows [nats a token]; over_dense: less that of dense attention.
        mass: share of the dense attention probability on the kept keys, mean of the layers, on some of these rows.
        layers: the same of each routed layer.
    """

    selector: str
    k: int
    loss: float
    over_dense: float
    mass: float
    layers: list[float]


@dataclass(frozen=True)
class Budget:
    """A model's curves.

    Args:
        name: of model, data and length, ended by a hash of what they and the budgets are.
        overrides: what was asked for.
        dense: loss of dense attention; unigram: of the best constant prediction [nats a token].
        margin: largest loss over dense that counts as none.
        layers: numbers of the routed layers among all of the model.
    """

    name: str
    overrides: list[str]
    model: str
    data: str
    seq_len: int
    rows: int
    dense: float
    unigram: float
    margin: float
    points: list[Point]
    layers: list[int] = field(default_factory=list)

    def enough(self, selector: str) -> int | None:
        """The smallest budget from which on a selector stays within the margin; None if it never does."""
        own = sorted((point for point in self.points if point.selector == selector), key=lambda point: -point.k)
        found = None
        for point in own:
            if point.over_dense > self.margin:
                break
            found = point.k
        return found

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"enough": {name: self.enough(name) for name in SELECTORS}}


def budgets(seq_len: int) -> list[int]:
    """Budgets that are asked for where none are named: 1/64 to 1/2 of the length, each twice the last."""
    return sorted({max(2, seq_len // part) for part in (64, 32, 16, 8, 4, 2)})


def measure(
    overrides: Sequence[str], ks: Sequence[int], margin: float, told: Callable[[Point], None] = lambda point: None
) -> Budget:
    """Judge every selector at every budget; what was judged before is found again.

    Args:
        overrides: as train.py takes them.
        ks: budgets; none: `budgets`.
        told: hears of each point.

    Raises:
        ValueError: a setting is impossible.
    """
    first = compose([*overrides, "selector=oracle", "pattern=causal", "judge=swap"])
    ks = sorted({*ks}) or budgets(first.seq_len)
    check(ks, first.seq_len)
    check_room(first)
    data = build_data(first)
    run = Run(first, data)
    models = Models(run.store, data.vocab_size)
    assert run.graph.base is not None and run.graph.dense is not None
    make_base(run.store, first, run.graph.base, data, shared(first, run.graph.base, "base"))
    dense = judged(run, run.graph.dense, data, models)["val"]["loss"]
    points = []
    for spec, name, k in compositions(overrides, ks):
        one = Run(spec, data)
        found = judged(one, one.graph.final, data, models)
        loss, selection = found["val"]["loss"], found["selection"]
        masses = [layer["mass"] for layer in selection["layers"]]
        points.append(Point(name, k, loss, loss - dense, selection["mean"]["mass"], masses))
        told(points[-1])
    rows, unigram = data.eval_batches * data.eval_batch_size, data.unigram_loss
    layers = [site.number for site in sites_of(first)]
    model, source, length = first.model.option, first.data.option, first.seq_len
    name = f"{model}-{source}-L{length}-{digest([run.graph.hash, ks])}"
    return Budget(name, [*overrides], model, source, length, rows, dense, unigram, margin, points, layers)


def compositions(overrides: Sequence[str], ks: Sequence[int]) -> Iterator[tuple[Spec, str, int]]:
    """Every selector at every budget."""
    for k in ks:
        for name in SELECTORS:
            settings = [f"selector={name}", f"selector.k={k}", "pattern=causal", "judge=swap"]
            yield compose([*overrides, *settings]), name, k


def check(ks: Sequence[int], seq_len: int) -> None:
    """Refuse budgets that select nothing, or everything."""
    for k in ks:
        if not 1 <= k < seq_len:
            raise ValueError(f"--k {k}: a budget is from 1 to seq_len - 1 = {seq_len - 1} keys.")


def sentence(budget: Budget) -> str:
    """What the curves say, in plain words."""
    best, chance = (budget.enough(name) for name in ("oracle", "random"))
    said = f"Dense attention has a loss of {budget.dense:.3f} nats a token here. "
    if budget.dense > budget.unigram - BELOW_UNIGRAM:
        said += (
            f"That is not below the unigram loss {budget.unigram:.3f}: the loss carries no information about "
            "attention, and nothing can be concluded. Is the model trained?"
        )
    elif chance is not None and (best is None or chance <= best):
        said += (
            f"Random keys are within {budget.margin:g} nats of it from {chance} on, those of the true attention no "
            "sooner: nothing can be concluded about which keys it needs."
        )
    elif best is None:
        most = max(point.k for point in budget.points)
        said += f"No budget up to {most} keys is within {budget.margin:g} nats of it, even by the true attention."
    else:
        share = best / budget.seq_len
        said += (
            f"Chosen by the true attention, {best} of {budget.seq_len} keys ({share:.1%}) are within {budget.margin:g} "
            f"nats of it, and no indexer needs to do better. {without_learning(budget, best)}"
        )
    return said


def without_learning(budget: Budget, best: int) -> str:
    """How many keys selections need that learn nothing.

    Args:
        best: how many those of the true attention need.
    """
    most = f"with up to {max(point.k for point in budget.points)} keys"
    names = {"sink_window": "the first and the nearest keys", "window": "the nearest keys"}
    needed = {told: budget.enough(name) for name, told in names.items()}
    known = {told: k for told, k in needed.items() if k is not None}
    if not known:
        return f"The first and the nearest alone are not {most}, nor the nearest: there is something to learn."
    said = "; ".join(f"{told} alone {f'are not {most}' if k is None else f'need {k}'}" for told, k in needed.items())
    none = " So there is nothing for an indexer to learn here." if min(known.values()) <= best else ""
    return f"{said[0].upper()}{said[1:]}.{none}"
