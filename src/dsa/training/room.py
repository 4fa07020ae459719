"""Whether a composition leaves its indexer something to choose."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from dsa.backbones.compressed import misfit
from dsa.build import build_indexer
from dsa.config import shipped
from dsa.indexers import Indexer
from dsa.ops import by_group
from dsa.ops.zones import first_forced, spans
from dsa.patterns import Pattern
from dsa.selectors import Dense, Selector, SelectorContext
from dsa.spec import Spec
from dsa.training.sites import first_site


@dataclass(frozen=True)
class Made:
    """A spec with what is asked about it, each made once and only if it is asked."""

    spec: Spec

    @cached_property
    def pattern(self) -> Pattern:
        pattern: Pattern = self.spec.pattern.make()
        return pattern

    @cached_property
    def selector(self) -> Selector:
        selector: Selector = self.spec.selector.make()
        return selector

    @cached_property
    def indexer(self) -> Indexer:
        """The first site's, without weights."""
        with torch.device("meta"):
            return build_indexer(self.spec, first_site(self.spec))


def no_entries(made: Made) -> str | None:
    """Why the composition cannot choose among the keys of the model's attention; None if it can."""
    spec = made.spec
    if not spec.sparse:
        return None
    return misfit(first_site(spec).stride, made.indexer if spec.uses_indexer else None, made.pattern)


def gaps_in_blocks(made: Made) -> str | None:
    """Why the keys that a pattern shows cannot be chosen in the indexer's blocks; None if they can.

    Every entry of a library is asked: a pass shows only what is chosen in it.
    """
    spec = made.spec
    if not spec.uses_indexer:
        return None
    indexer = made.indexer
    if indexer.unit == 1 and not indexer.forced:
        return None
    gap = gap_in(made.pattern, indexer)
    if gap is None:
        return None
    shown = ((name, replace(spec.pattern, node=node).make()) for name, node in shipped("pattern", spec.content))
    others = ", ".join(name for name, pattern in shown if gap_in(pattern, indexer) is None)
    return (
        f"pattern={spec.pattern.option} with indexer={spec.indexer.option}, which chooses blocks of indexer.unit = "
        f"{indexer.unit} tokens: {gap}. Patterns that show whole blocks: {others}"
    )


def gap_in(pattern: Pattern, indexer: Indexer) -> str | None:
    """Why an indexer's blocks cannot be chosen in what a pattern shows; None if they can."""
    limit = torch.ones(1, 1, 1, dtype=torch.long)
    for zones in [zones for one in pattern.library for zones in by_group(one.zones())]:
        try:
            spans(zones, limit, unit=indexer.unit, forced=indexer.forced)
        except ValueError:
            step = max(zone.step for zone in zones if not zone.forced)
            first = max(zone.begin for zone in zones if not zone.forced)
            return f"its keys lie {step} tokens apart" if step > 1 else f"its keys begin at {first}, within a block"
    return None


def never_decides(made: Made) -> str | None:
    """The reason if a pattern or indexer that decides by a row's first tokens never does at this length."""
    spec = made.spec
    if not spec.sparse:
        return None
    prefixes = {"pattern": made.pattern.prefix}
    if spec.uses_indexer:
        prefixes["indexer"] = made.indexer.prefix
    for part, prefix in prefixes.items():
        if prefix >= spec.seq_len:
            return f"{part}.prefix = {prefix}: the tokens that decide leave none of {spec.seq_len} to decide for"
    return None


def too_wide(made: Made) -> str | None:
    """The reason if every query keeps all its keys, or the pattern forces all that a query may keep."""
    spec = made.spec
    if not spec.sparse or issubclass(spec.selector.cls, Dense):
        return None
    keeps = int(least(made.selector, at_the_end(made)).min())
    if keeps >= spec.seq_len:
        return f"window and budget reach the length: {keeps} keys of {spec.seq_len}, so attention is dense"
    return all_forced(made)


def all_forced(made: Made) -> str | None:
    """The reason if the pattern forces all that the last query may keep, and leaves it others to see; a rule that sees
    scores or is calibrated may always keep more."""
    selector = made.selector
    if not made.spec.sparse or isinstance(selector, Dense) or selector.trims or selector.calibrates:
        return None
    end = at_the_end(made)
    most, forced = int(selector.limit(end).max()), forced_keys(made.pattern, end.time)
    if most <= forced and int(end.visible.max()) > forced:
        return f"the pattern's {forced} forced keys use up the budget of {most}: nothing is left to choose"
    return None


def searches_everything(made: Made) -> str | None:
    """The reason if an indexer that searches a part of the row searches all of it."""
    spec = made.spec
    searched = made.indexer.searched if spec.uses_indexer else None
    if searched is None or searched < spec.seq_len:
        return None
    return (
        f"indexer={spec.indexer.option} searches {searched} tokens of seq_len = {spec.seq_len}: "
        "it leaves none out, and selects what the same scores would without a search"
    )


def at_the_end(made: Made) -> SelectorContext:
    """What a selector is told of the last query."""
    last = torch.tensor([[made.spec.seq_len - 1]])
    return SelectorContext(last, made.pattern.visible(last), made.pattern.own_budget(last))


def too_coarse(made: Made) -> str | None:
    """The reason if what a query keeps anyway can leave its budget no room for one of the indexer's blocks, or of the
    model's entries; a rule that sees scores or is calibrated may always find some."""
    spec = made.spec
    if not spec.sparse:
        return None
    site = first_site(spec)
    unit, own = (made.indexer.unit, made.indexer.forced) if spec.uses_indexer else (site.stride, ())
    if unit == 1:
        return None
    pattern, selector = made.pattern, made.selector
    if selector.trims or selector.calibrates:
        return None
    last = torch.arange(spec.seq_len)[None, -unit:]  # one of them has the most that is kept anyway
    context = SelectorContext(last, pattern.visible(last, own), pattern.own_budget(last, own))
    budget = int(site.budget(selector.limit(context), last).max())
    taken = max(int((last + 1 - first_forced(own, last)).max()), forced_keys(pattern, last[:, -1:]))
    if budget - taken >= unit or budget >= spec.seq_len:  # the whole row is kept
        return None
    return f"up to {taken} keys are kept anyway: a budget of {budget} has no room for a block of {unit} tokens"


def forced_keys(pattern: Pattern, last: Int[Tensor, "1 1"]) -> int:
    """Most keys that a pattern keeps for the last query, whatever is selected."""
    return max(
        sum(int(zone.span(last)[1].sum()) for zone in zones if zone.forced) for zones in by_group(pattern.zones())
    )


def least(selector: Selector, context: SelectorContext) -> Int[Tensor, "1 group time"]:
    """Keys that each query keeps; for a rule that sees scores or is calibrated, its lower bound."""
    if selector.trims or selector.calibrates:
        return context.visible.clamp(max=int(getattr(selector, "min_k", 1)))
    return selector.limit(context)
