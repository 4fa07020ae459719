"""All that decides a selection at a site: indexer, pattern, selector and precision."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.profiler import record_function

from dsa import ops
from dsa.backbones.cache import AtSite
from dsa.backbones.contracts import Pass, Routed, Site, SiteInputs
from dsa.indexers import Indexer
from dsa.indexers.base import NOTHING
from dsa.ops import IndexFeatures, InUnits, Mixed, Rotation, Scorer, Selection, TrueAttention, by_group
from dsa.patterns import Choice, Pattern
from dsa.precision import Bits, Precision
from dsa.selectors import Selector, SelectorContext


class View(NamedTuple):
    """What a pattern lets consecutive queries see, whatever the tokens.

    Args:
        time: their positions.
        seen: how many keys each sees, by entry of the pattern's library.
        own: how many of them the pattern keeps by default.
    """

    time: Int[Tensor, "time"]
    seen: Sequence[Int[Tensor, "group time"]]
    own: Sequence[Int[Tensor, "group time"]]


class Router(nn.Module):
    """Chooses each query's keys; at one site, or for several that share its choice.

    Args:
        indexer: scores keys; None if the selector is a control.
        pattern: which keys a query may see.
        selector: how many keys a query keeps.
        precision: number format of the index scores.
        site: the site whose hidden states it reads; sites after it may share what it chose.
        backend: which ops backend serves: auto, reference, blocked, cpu or triton.
    """

    def __init__(
        self,
        indexer: Indexer | None,
        pattern: Pattern,
        selector: Selector,
        precision: Precision,
        site: int,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.indexer, self.pattern, self.selector, self.precision = indexer, pattern, selector, precision
        self.site, self.backend = site, ops.checked_backend(backend)
        self.last_views: dict[torch.device, tuple[tuple[Any, ...], View]] = {}

    def route(self, site: Site, x: Float[Tensor, "batch time width"], attention: Callable[[], TrueAttention],
              rotary: Rotation, how: Pass, latent: Float[Tensor, "batch time latent"] | None = None,
              ) -> Routed:  # fmt: skip
        """What the queries of a site attend to. Sites that share a router get what it chose at its own.

        Args:
            attention: the dense one, of which a control asks; where the site reads entries over these alone.
        """
        if site.index != self.site:
            return how.routes[self.site]
        features, cast = self.index(x, rotary, how, latent)
        choice = self.choose(x, how)
        context = self.context(len(x), x.shape[1], x.device, how, choice)
        if self.site in how.replay:
            if site.stride > 1:
                raise ValueError("replay: this model attends to compressed entries, whose positions no array gives.")
            given = replayed(how.replay[self.site], how.offset, *x.shape[:2])
            return how.routes.setdefault(self.site, Routed(given, features, cast, context, choice))
        with named("select", x.device):
            selection = self.select(cast, attention, context, how.offset, site, choice)
        if self.training and selection is not None:
            self.selector.observe(selection, context)
        how.routes[self.site] = Routed(selection, features, cast, context, choice)
        return how.routes[self.site]

    def scorer(self, cast: IndexFeatures | Mixed | None) -> Scorer | None:
        """What ranks keys by features after rounding; None without an indexer."""
        if cast is None or self.indexer is None:
            return None
        library = tuple(zones for one in self.pattern.library for zones in by_group(one.zones()))
        return self.indexer.scorer(cast, library)

    def losses(self, routed: Routed, target: TrueAttention) -> dict[str, Float[Tensor, ""]]:
        """What the indexer is to minimise over a selection, by name; empty without an indexer."""
        if routed.cast is None:
            return {}
        with named("indexer_loss", target.queries.device):
            return {"indexer": ops.indexer_loss(routed.cast, target, routed.selection, backend=self.backend)}

    def index(
        self, x: Tensor, rotary: Rotation, how: Pass, latent: Tensor | None = None
    ) -> tuple[IndexFeatures | Mixed | None, IndexFeatures | Mixed | None]:
        """Index features before and after rounding to the precision's format."""
        if self.indexer is None:
            return None, None
        with named("indexer", x.device):
            keep = NOTHING if how.cache is None else AtSite(how.cache, self.site)
            features = self.indexer(x, rotary, keep, latent)
            if how.picked is not None and isinstance(features, Mixed) and features.picked is not None:
                how.picked(self.site, features.picked)
            return features, features.mapped(self.precision.cast)

    def bits(self, features: IndexFeatures | Mixed) -> Bits | None:
        """What the format spends on these features; None if it does not say."""
        found = [self.precision.bits(each) for each in features.each]
        if len(found) == 1:
            return found[0]
        said = [bits for bits in found if bits is not None]
        if len(said) < len(found):
            return None
        queries, keys = (torch.cat([x.flatten() for x in part])[None, None] for part in zip(*said, strict=True))
        return Bits(queries[..., None], keys)

    def choose(self, x: Tensor, how: Pass) -> Choice | None:
        """Which of its library the pattern shows each query."""
        first = x[:, : max(0, self.pattern.prefix - how.offset)]
        if how.cache is not None and self.pattern.prefix:
            first = how.cache.extend("prefix", self.site, first, 1)
        time = torch.arange(how.offset, how.offset + x.shape[1], device=x.device).expand(len(x), -1)
        choice = self.pattern.choose(x, first, time, how.progress, how.step)
        if choice is not None and how.chose is not None:
            how.chose(self.site, choice)
        return choice

    def context(
        self, batch: int, length: int, device: torch.device, how: Pass, choice: Choice | None
    ) -> SelectorContext:
        """What the selector may know: positions, the keys that each sees, and how many of them the pattern keeps."""
        view = self.view(how.offset, length, device)
        seen, own = (of_choice(x, choice).expand(batch, -1, -1) for x in (view.seen, view.own))
        return SelectorContext(view.time.expand(batch, -1), seen, own, how.progress, self.site, how.step)

    def view(self, offset: int, length: int, device: torch.device) -> View:
        """What consecutive queries see: the answer of the last pass on that device, if it asked the same."""
        forced = () if self.indexer is None else self.indexer.forced
        asked, last = (offset, length, self.pattern, forced), self.last_views.get(device)
        if last is not None and last[0] == asked:
            return last[1]
        with torch.inference_mode(False):  # they outlive this pass, and the next one may learn
            time = torch.arange(offset, offset + length, device=device)
            seen = [one.visible(time, forced) for one in self.pattern.library]
            own = [one.own_budget(time, forced) for one in self.pattern.library]
        view = View(time, seen, own)
        self.last_views[device] = asked, view
        return view

    @torch.no_grad()
    def select(
        self,
        cast: IndexFeatures | Mixed | None,
        attention: Callable[[], TrueAttention],
        context: SelectorContext,
        offset: int,
        site: Site,
        choice: Choice | None = None,
    ) -> Selection | None:
        """The selection, or None if every query keeps every earlier key."""
        limit = site.budget(self.selector.limit(context), context.time)
        trim = self.selector.trim if self.selector.trims else None
        slots, whole = self.room(context, offset, site)
        if trim is None and whole and keeps_every_key(limit, context):
            return None
        scorer = self.selector.scorer(self.scorer(cast), attention, context)
        if scorer.unit < site.stride:
            scorer = InUnits(scorer, site.stride)
        if choice is None:
            return ops.select(scorer, self.pattern.zones(), limit, trim, offset, slots=slots, backend=self.backend)
        library = [one.zones() for one in self.pattern.library]
        return ops.select_chosen(scorer, library, choice.entry, limit, trim, offset, slots=slots, backend=self.backend)

    def room(self, context: SelectorContext, offset: int, site: Site) -> tuple[int | None, bool]:
        """How many slots a selection needs at most, and whether its queries may all keep every key: worked out
        in the host's memory, so that no other device is waited for. On the CPU whoever asks need not wait."""
        if context.time.device.type == "cpu":
            return None, True
        view = self.view(offset, context.time.shape[1], torch.device("cpu"))
        slots, whole = 1, False
        for seen, own in zip(view.seen, view.own, strict=True):
            here = context._replace(time=view.time[None], visible=seen[None], own=own[None])
            limit = site.budget(self.selector.at_most(here), here.time)
            slots, whole = max(slots, int(limit.max())), whole or keeps_every_key(limit, here)
        return slots, whole


def replayed(given: Selection, offset: int, batch: int, time: int) -> Selection:
    """The part of a given selection that belongs to a pass; one text's is that of every row.

    Raises:
        ValueError: it ends before, or is of another number of rows.
    """
    tokens = given.counts.shape[2]
    if offset + time > tokens:
        raise ValueError(f"replay: the selection is of {tokens} tokens, the pass goes to {offset + time}.")
    if len(given.counts) not in (1, batch):
        raise ValueError(f"replay: the selection is of {len(given.counts)} rows, the pass of {batch}.")
    parts = (part[:, :, offset : offset + time] for part in given)
    return Selection(*(part.expand(batch, *[-1] * (part.dim() - 1)) for part in parts))


def of_choice(each: Sequence[Int[Tensor, "group time"]], choice: Choice | None) -> Int[Tensor, "..."]:
    """Of numbers that each entry of a library has for groups and queries, that of each query's own entry."""
    if choice is None:
        (own,) = each
        return own
    batch, groups, _ = choice.entry.shape
    return torch.stack([one.expand(batch, groups, -1) for one in each]).gather(0, choice.entry[None])[0]


def attention_of(inputs: SiteInputs, backend: str) -> TrueAttention:
    """The dense attention of a site, as an indexer learns it."""
    site, q, k = inputs.site, inputs.queries, inputs.keys
    if inputs.logsumexp is None:
        return dense_target(site, q, k, backend, sink=inputs.sink)
    return TrueAttention(q.detach(), k.detach(), inputs.logsumexp, scale=site.scale, cap=site.cap)


def dense_target(
    site: Site, q: Tensor, k: Tensor, backend: str, groups: int = 1, sink: Tensor | None = None
) -> TrueAttention:
    """The attention of every query over every earlier key, its logits scaled and capped as the site's are."""
    logsumexp = ops.dense_logsumexp(q, k, sink, scale=site.scale, cap=site.cap, backend=backend)
    return TrueAttention(q.detach(), k.detach(), logsumexp, groups, scale=site.scale, cap=site.cap)


def keeps_every_key(limit: Int[Tensor, "batch group time"], context: SelectorContext) -> bool:
    """Whether every query keeps every earlier key. The last one has most: mostly its number alone answers."""
    if int(limit[0, 0, -1]) <= int(context.time[0, -1]):
        return False
    return bool((torch.minimum(limit, context.visible) > context.time[:, None]).all())


def named(part: str, device: torch.device) -> AbstractContextManager[object]:
    """Shows a part of the attention to the profiler, if one runs: the name alone costs as much as a small op."""
    if torch.compiler.is_compiling() or not torch.autograd._profiler_enabled():
        return nullcontext()
    return waited_for(part, device)


@contextmanager
def waited_for(part: str, device: torch.device) -> Iterator[None]:
    """A part that begins when the device is idle and ends when it is again: a GPU is only told what to do, and the
    time of telling it is no time of the part."""
    finish(device)
    with record_function(f"dsa/{part}"):
        yield
        finish(device)


def finish(device: torch.device) -> None:
    """Wait for what a device was told to do; a CPU has done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
