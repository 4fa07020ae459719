"""Index features whose heads have other weights."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.backbones import Backbone, Observation, Router
from dsa.ops import IndexFeatures, Mixed, Scorer

Reweigh = Callable[[Tensor], Tensor]
"""What becomes of weights, [batch group time head] or of one head [batch group time]; it keeps the shape."""


def as_it_is(weights: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    return weights


def clamped(weights: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Negative weights become 0."""
    return weights.clamp(min=0)


def head(number: int, own: Reweigh, others: Reweigh = as_it_is) -> Reweigh:
    """One thing for a head, another for the others."""

    def to(weights: Float[Tensor, "*any head"]) -> Float[Tensor, "*any head"]:
        each = weights.unbind(-1)
        return torch.stack([own(one) if index == number else others(one) for index, one in enumerate(each)], -1)

    return to


def reweighted(scorer: Scorer, to: Reweigh) -> IndexFeatures:
    """The same features with other weights, in a format of integers too: their scales are positive."""
    assert isinstance(scorer, IndexFeatures) and scorer.weights is not None  # weighted_routers
    integers = scorer.integers
    return scorer._replace(
        weights=to(scorer.weights),
        integers=None if integers is None else integers._replace(weights=to(integers.weights)),
    )


def changed(to: Reweigh) -> Callable[[Scorer], IndexFeatures]:
    """`reweighted` as a change of scorers."""
    return partial(reweighted, to=to)


def weighted_routers(model: Backbone, seen: Sequence[Observation], name: str) -> list[Router]:
    """The routers of a model that rank single keys by a sum over heads with weights.

    Args:
        seen: of each layer in one row.

    Raises:
        ValueError: one ranks them by something else, no key is left out, or the scores decide how many are kept.
    """
    routers = [router for router in model.routers if isinstance(router, Router)]
    if any(router.selector.trims for router in routers):
        raise ValueError(
            f"{name}: its selector keeps as many keys as their scores say; give a run with a fixed budget."
        )
    if not seen or any(layer.selection is None for layer in seen):
        raise ValueError(f"{name}: a layer keeps every earlier key; give a run with a smaller budget.")
    if any(layer.choice is not None for layer in seen):
        raise ValueError(
            f"{name}: its pattern chooses among others; give a run with a fixed pattern, as pattern=causal."
        )
    casts = {layer.layer: layer.cast for layer in seen}
    if not all(weighs(router, casts[router.site]) for router in routers):
        raise ValueError(
            f"{name}: no weights of heads say how single keys are ranked; give a run of a lightning indexer (h1d1 to "
            "h4d64, deepseek_v32, glm5) with indexer.weight=signed, positive, negative or absolute."
        )
    return routers


def weighs(router: Router, cast: IndexFeatures | Mixed | None) -> bool:
    """Whether a router ranks single keys by one sum over heads with weights."""
    if not isinstance(cast, IndexFeatures) or cast.weights is None or cast.unit > 1 or cast.bands:
        return False
    return router.indexer is not None and isinstance(router.indexer.scorer(cast), IndexFeatures)
