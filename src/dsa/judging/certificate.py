"""What a user of a pretrained model would check by hand first: is it still the model, and does it look ahead?"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dsa.backbones import Backbone, Cache, Observation, Pass, Router
from dsa.judging.ties import tied, tied_share
from dsa.ops import Recency, Scorer, TrueAttention, Zone, Zones
from dsa.ops.reference import to_mask
from dsa.ops.rotary import CannotGoOn
from dsa.patterns.base import Pattern
from dsa.precision import Exact
from dsa.selectors.base import Selector, SelectorContext

SHORT, BUDGETS, LAST, SINGLE = 128, 3, 16, 8
"""Tokens on which the checks are made, if a text has them: so many at least, and so many times the most keys that a
query keeps, for selection to act on most of them; how many of their last come after the others, and how many of these
one by one. What is checked are properties of model and composition, not of a text."""


class Certificate(NamedTuple):
    """Checks of one composition on one pretrained model.

    Args:
        tokens: of the text that was looked at.
        acted: queries whose selection left keys out, of all.
        identity: largest change of a logit where every key is kept, through the kernels of a selection.
        causality: largest change of a logit when later tokens are others; it must be 0.
        reach: largest change of a logit that the selection makes: 0 would say that it did nothing.
        decode: largest change of a logit where the text comes in parts, its last 16 tokens as eight at once and eight
            one by one, as when it is generated: rounding. None where an indexer of one's own cannot go on there.
        reselected: selections of those last tokens that are then others, of all sites and groups of heads.
        ties: share of the queries that left a key out whose last kept one scores no better; None without an indexer.
    """

    tokens: int
    acted: int
    identity: float
    causality: float
    reach: float
    decode: float | None
    reselected: int | None
    ties: float | None


@torch.no_grad()
def certify(model: Backbone, tokens: Int[Tensor, "row time"], most: int) -> dict[str, Any]:
    """Check a routed model on the beginning of one text, in float32; its routers are what they were at the end.

    Args:
        most: keys that a query keeps at most, as `most_kept` finds it.
    """
    seen: list[Observation] = []
    training = model.training
    model.eval()
    with torch.autocast(tokens.device.type, enabled=False):
        text = tokens[:1, : max(SHORT, BUDGETS * most)]
        dense, identity = own_logits(model, text)
        sparse = model.run(text, Pass(observe=seen.append)).logits
        early = first_changed(text.shape[1], most)
        other = text.clone()
        other[:, early:] = other[:, early:].flip(1) if text.shape[1] - early > 1 else (other[:, early:] + 1) % 2
        causality = largest(sparse[:, :early] - model.run(other, Pass()).logits[:, :early])
        decode, reselected = decoded(model, text, sparse, seen)
    model.train(training)
    reach, ties = largest(sparse - dense), tied_share([here for layer in seen if (here := tied(layer)) is not None])
    acted = acted_on(seen)
    return Certificate(text.shape[1], acted, identity, causality, reach, decode, reselected, ties)._asdict()


def most_kept(seen: Sequence[Observation]) -> int:
    """The most keys that a query of the first row keeps at a site whose selection leaves some out; 0 where none does.

    Args:
        seen: what the sites did on it.
    """
    return max((int(layer.selection.counts[:1].max()) for layer in seen if layer.selection is not None), default=0)


class Own(NamedTuple):
    """What a model says of a text without a composition.

    Args:
        of: the text, what its sites run through and its weights, by `marks`.
        dense: its own logits.
        identity: largest change of them where every key is kept, through the kernels of a selection.
    """

    of: tuple[Any, ...]
    dense: Tensor
    identity: float


FOUND: WeakKeyDictionary[Backbone, Own] = WeakKeyDictionary()
"""The last that was found of each model: compositions on one base are judged one after the other, and share it."""


def own_logits(model: Backbone, text: Tensor) -> tuple[Tensor, float]:
    """A model's own logits, and how far from them it is with every key kept: found once for all compositions on it."""
    found, of = FOUND.get(model), marks(model, text)
    if found is None or found.of != of:
        dense = model.run(text, Pass(sparse=False)).logits
        found = FOUND[model] = Own(of, dense, largest((kept_whole(model, text) - dense)[:, :-1]))
    return found.dense, found.identity


def marks(model: Backbone, text: Tensor) -> tuple[Any, ...]:
    """What decides `own_logits`: the text, the places of the routers, their kernels, and how often weights were set."""
    routers = [(router.site, router.backend) for router in model.routers if isinstance(router, Router)]
    weights = [(weight.data_ptr(), weight._version) for weight in model.groups()["backbone"]]
    return text.tolist(), model.router_of, routers, weights


def first_changed(time: int, most: int) -> int:
    """From where on tokens are others: two thirds of the way to the end, from where queries leave keys out on."""
    return min((most + 2 * time) // 3, time - 1)


def decoded(
    model: Backbone, text: Tensor, whole: Tensor, seen: list[Observation]
) -> tuple[float, int] | tuple[None, None]:
    """How far the text in parts, with a cache, is from the text in one pass: in logits, and in selections.

    Args:
        whole: logits of the one pass; seen: what its sites did.
    """
    time = text.shape[1]
    first = max(time - LAST, 1)
    cuts = sorted({first // 2, first, *range(max(time - SINGLE, 1), time)} - {0, time})
    parts: list[Observation] = []
    how = Pass(cache=Cache(room=time), observe=parts.append)
    try:
        logits = torch.cat([model.run(part, how).logits for part in text.tensor_split(cuts, 1)], 1)
    except CannotGoOn:
        return None, None
    others = 0
    for observed in seen:
        whole_kept, t = kept(observed, time), 0
        for part in (part for part in parts if part.layer == observed.layer):
            end = t + part.queries.shape[2]
            if t >= first:
                others += int((kept(part, time) != whole_kept[:, :, t:end]).any(-1).sum())
            t = end
    return largest(logits - whole), others


def kept(seen: Observation, keys: int) -> Bool[Tensor, "batch group time key"]:
    """Which keys each query of a site attends to."""
    time = seen.queries.shape[2]
    if seen.selection is not None:
        return to_mask(seen.selection, keys)
    last = torch.arange(seen.keys.shape[2] - time, seen.keys.shape[2], device=seen.keys.device)[:, None]
    return (torch.arange(keys, device=last.device) <= last).expand(len(seen.queries), 1, -1, -1)


class Earlier(Pattern):
    """Every earlier key competes. A pattern of its own: what a user's patterns become changes no certificate."""

    def zones(self) -> Zones:
        return (Zone(first=None, last=0, keep="selector"),)


class Nearest(Selector):
    """The k nearest keys."""

    uses_indexer = False

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def limit(self, context: SelectorContext) -> Int[Tensor, "batch group time"]:
        return context.visible.clamp(max=self.k)

    def scorer(
        self, features: Scorer | None, attention: Callable[[], TrueAttention], context: SelectorContext
    ) -> Scorer:
        return Recency()


def kept_whole(model: Backbone, text: Tensor) -> Tensor:
    """Logits where every query but the last keeps every key; that one leaves out one, so that nothing runs dense.

    Keys are chosen by position: with and without an indexer, in units of several tokens or of one.
    """
    routers, of = list(model.routers), model.router_of
    every = [
        Router(None, Earlier(), Nearest(text.shape[1] - 1), Exact(), router.site, router.backend)
        for router in routers
        if isinstance(router, Router)
    ]
    model.attach(every, of)
    try:
        return model.run(text, Pass()).logits
    finally:
        model.attach([router for router in routers if isinstance(router, Router)], of)


def acted_on(seen: list[Observation]) -> int:
    """Queries of the first site that attend to fewer keys than there are earlier ones."""
    if seen[0].selection is None:
        return 0
    counts = seen[0].selection.counts[0, 0].long()
    return int((counts < torch.arange(1, len(counts) + 1, device=counts.device)).sum())


def largest(difference: Tensor) -> float:
    """The largest absolute value."""
    return difference.abs().max().item()
