"""Which layers keep an indexer when some must lead the others: a greedy search, without training.

Source: IndexCache (arXiv:2603.12201), its search without training: begin with an indexer at every layer, and again and
again take away the one without which the language-model loss on calibration rows is least. The first layer keeps its
own. Loss, and not overlap of the keys, is the criterion there and here: what a layer's other keys do to all that comes
after it, no comparison of two layers sees.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dsa.backbones import Backbone, Router
from dsa.build import build_data, numbers_of_indexers
from dsa.checks import at_least
from dsa.data import Batch, DataModule
from dsa.inspection.held import Held
from dsa.inspection.losses import mean_loss
from dsa.inspection.measure import spread
from dsa.inspection.query_blocks import query_blocks
from dsa.judging.probe import observed
from dsa.training.load import finished, load_run, load_spec

ROWS = 256  # of the training data, drawn apart from any stage's, that the search looks at


class Step(NamedTuple):
    """One layer less that leads.

    Args:
        layer: that stops leading; None before the first step.
        leaders: that are left.
        loss: on calibration rows, the least of all that could stop [nats].
    """

    layer: int | None
    leaders: tuple[int, ...]
    loss: float


def search(loss: Callable[[tuple[int, ...]], float], count: int, least: int) -> Iterator[Step]:
    """Take away leaders one by one, of equal losses the earlier layer first.

    Args:
        loss: of a model in which these layers lead.
        count: layers, which all lead to begin with.
        least: how many are to lead in the end.
    """
    step = Step(None, tuple(range(count)), loss(tuple(range(count))))
    yield step
    while len(step.leaders) > least:
        tried = []
        for layer in step.leaders[1:]:
            left = tuple(one for one in step.leaders if one != layer)
            tried.append(Step(layer, left, loss(left)))
        step = min(tried, key=lambda one: one.loss)
        yield step


def ways(count: int, least: int) -> int:
    """How many ways to share `search` tries."""
    return 1 + sum(range(least, count))


def lead_of(
    folder: str | Path,
    layers: int,
    rows: int = ROWS,
    allow_targets: tuple[str, ...] = (),
    tried: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Which layers of a finished run keep an indexer, and what it costs without any training; plain data.

    Args:
        layers: how many keep one.
        rows: that the search looks at, in whole batches.
        allow_targets: packages of your own whose classes the run's configuration may name.
        tried: is told how many ways to share have been tried, and of how many.

    Raises:
        FileNotFoundError: the folder holds no finished run, or one without its weights.
        ValueError: its layers have no indexers of their own, not as many as are to keep one, or there are no rows.
    """
    result = finished(folder)
    model, spec = load_run(folder, allow_targets), load_spec(Path(folder), allow_targets)
    return {"run_id": result.run_id} | measure_lead(model, build_data(spec), layers, result.run_id, rows, tried)


@torch.no_grad()
def measure_lead(
    model: Backbone,
    data: DataModule,
    layers: int,
    name: str,
    rows: int = ROWS,
    tried: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """The search on rows of the training data, and its steps on the held-out rows, in float32.

    `steps` have the layer that stops leading, the `leaders` that are left, the loss on the calibration rows, by which
    it was chosen, and on all held-out rows [nats], and what `Held.over` says of the selections before any sharing.

    Raises:
        ValueError: as above.
    """
    own = routers_of(model, layers, name)
    count = len(own)
    held = held_in(model, data, name)
    held_out = list(data.eval_loader())
    calibration = [data.batch("lead", step) for step in range(math.ceil(at_least(rows, 1, "--rows") / data.batch_size))]

    def loss(leaders: tuple[int, ...], batches: Sequence[Batch]) -> float:
        let_lead(model, own, leaders)
        return mean_loss(model, batches)

    done = itertools.count(1)

    def calibrated(leaders: tuple[int, ...]) -> float:
        found = loss(leaders, calibration)
        tried(next(done), ways(count, layers))
        return found

    steps = []
    for step in search(calibrated, count, layers):
        mass, overlap = held.over([step.leaders[n] for n in numbers_of_indexers(model.sites, step.leaders)])
        steps.append({
            "layer": step.layer, "leaders": list(step.leaders), "calibration_loss": step.loss,
            "loss": loss(step.leaders, held_out), "mass": mass, "overlap": overlap,
        })  # fmt: skip
    model.attach(own)
    overlaps, masses = held.means().tolist()
    return {
        "layers": count,
        "calibration_rows": sum(len(batch.tokens) for batch in calibration),
        "rows": sum(len(batch.tokens) for batch in held_out),
        "steps": steps,
        "leaders": steps[-1]["leaders"],
        "overlap": overlaps,
        "mass": masses,
    }


def routers_of(model: Backbone, layers: int, name: str) -> list[Router]:
    """The routers of a model whose layers each have an indexer of their own.

    Raises:
        ValueError: they have not, or not as many as are to keep one.
    """
    routers = [router for router in model.routers if isinstance(router, Router) and router.indexer is not None]
    count = len(model.sites)
    if not routers:
        raise ValueError(f"{name}: no indexer chooses its keys; give a run with one at each layer.")
    if len(routers) < count:
        raise ValueError(f"{name}: its {count} layers share {len(routers)} indexers; give a run with index_every=1.")
    if count == 1:
        raise ValueError(f"{name}: it has one attention layer, which no other can lead.")
    if not 1 <= layers < count:
        raise ValueError(
            f"--layers = {layers}: {name} has {count} layers with an indexer; give how many keep one, "
            f"at least 1 and fewer than {count}."
        )
    return routers


def let_lead(model: Backbone, own: Sequence[Router], leaders: tuple[int, ...]) -> None:
    """Let each of these layers lead those up to the next of them."""
    model.attach([own[leader] for leader in leaders], numbers_of_indexers(model.sites, leaders))


def held_in(model: Backbone, data: DataModule, name: str) -> Held:
    """What the layers' own selections hold of each other's, on held-out rows spread evenly.

    Raises:
        ValueError: a layer attends to every earlier key.
    """
    tokens = torch.cat([batch.tokens for batch in data.eval_loader()])
    held = Held(len(model.sites))
    for row in spread(len(tokens)):
        seen = observed(model, tokens[row][None])
        if any(layer.selection is None for layer in seen):
            raise ValueError(f"{name}: a layer keeps every earlier key; give a run with a smaller budget.")
        for parts in zip(*(query_blocks(layer) for layer in seen), strict=True):
            held.add(list(parts))
    return held
