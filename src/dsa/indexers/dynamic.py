"""Several lightning indexers of different size, of which a picker takes one for each row."""

import re
from collections.abc import Sequence
from typing import Any

from dsa.checks import one_of
from dsa.indexers.lightning import LightningIndexer
from dsa.indexers.picking import Picking
from dsa.ops.cost import index_pair_flops

SHIPPED = {"rotary_dim": None, "weight": "signed", "init": 0.02, "latent": False}
"""What the options h1d16, h2d32, ... have besides their size."""


class DynamicIndexer(Picking):
    """A row's first tokens decide which of several lightning indexers scores the keys of all its later queries: see
    `Picking`.

    Parameters: of the members, and members * (d_model + 1) of the picker.

    Args:
        d_model: width of the hidden states.
        members: sizes of the lightning indexers, as h2d32 for 2 heads of 32 dims.
        compute: the mean operations of a score that are to be spent, as a share of those of the largest member.
        prefix: tokens of a row that decide [tokens].
        fixed: a member that stands in the place of them all: this option is then that lightning indexer, and no other.
        weight: of a head, as in LightningIndexer.
        init: standard deviation of the members' initial weights; the picker begins at 0.
    """

    def __init__(
        self,
        d_model: int,
        members: Sequence[str],
        compute: float,
        prefix: int,
        fixed: str | None = None,
        weight: str = "signed",
        init: float = 0.02,
    ) -> None:
        if fixed is not None:
            raise ValueError(f"indexer.fixed = {fixed}: it is settled with the configuration; give null here.")
        sizes = sizes_of(members)
        costs = {name: float(index_pair_flops(*size)) for name, size in sizes.items()}
        made = {
            name: LightningIndexer(d_model, *sizes[name], weight=weight, init=init)
            for name in sorted(costs, key=lambda name: costs[name])
        }
        super().__init__(d_model, made, costs, compute, prefix)

    @classmethod
    def stands_for(cls, settings: dict[str, Any], seq_len: int) -> tuple[str, dict[str, Any]] | None:
        """The lightning indexer that `fixed` names."""
        if settings.get("fixed") is None:
            return None
        sizes = sizes_of(settings["members"])
        fixed = one_of(settings["fixed"], tuple(sizes), "indexer.fixed")
        heads, dim = sizes[fixed]
        own = SHIPPED | {"weight": settings["weight"], "init": settings["init"]}
        name = fixed if own == SHIPPED else f"{fixed}~"
        return name, {"_target_": "dsa.indexers.LightningIndexer", "heads": heads, "dim": dim} | own


def sizes_of(members: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Heads and dims by name.

    Raises:
        ValueError: no list, a name that says no size, or fewer than two members that differ in what they cost.
    """
    if not isinstance(members, list | tuple):
        raise ValueError(f"indexer.members = {members}: give a list of sizes, as [h1d16,h4d64].")
    found = {str(name): re.fullmatch(r"h([1-9]\d*)d([1-9]\d*)", str(name)) for name in members}
    for name, match in found.items():
        if match is None:
            raise ValueError(f"indexer.members: {name} is no size; give heads and dims, as h2d32.")
    sizes = {name: (int(match[1]), int(match[2])) for name, match in found.items() if match is not None}
    if len(sizes) < 2 or len({index_pair_flops(*size) for size in sizes.values()}) < len(members):
        raise ValueError(
            f"indexer.members = {', '.join(map(str, members))}: give two or more, whose scores cost differently."
        )
    return sizes
