"""What a model costs by counting: parameters and operations."""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from dsa.backbones import Backbone, Router
from dsa.indexers import Indexer
from dsa.ops import IndexFeatures, Rotation, Scorer, Zones, cost
from dsa.patterns import Pattern


@torch.no_grad()
def index_features(indexer: Indexer, width: int) -> IndexFeatures:
    """An indexer's features of one blank token: their shapes tell what scores and keys cost, whoever wrote it.

    Of one that picks among others those with which it begins a row.
    """
    device = next(indexer.parameters()).device
    hidden, latent = (torch.zeros(1, 1, size, device=device) for size in (width, indexer.latent_width))
    return indexer(hidden, Rotation(1, 10000.0, device), latent=latent).each[0]


def routed_indexers(model: Backbone) -> list[tuple[Router, Indexer, int]]:
    """Every indexer with its router, and the width of the hidden states that it sees."""
    return [
        (router, router.indexer, model.sites[router.site].width)
        for router in routers_of(model)
        if router.indexer is not None
    ]


def routers_of(model: Backbone) -> list[Router]:
    """What is attached to a model."""
    return [router for router in model.routers if isinstance(router, Router)]


Chosen = Mapping[int, list[dict[str, float]]]
"""Where a site's pattern chooses among others: the share of queries that got each, by group of heads."""
Shares = Mapping[int, dict[str, float]]
"""Where a site's indexer picks among others: the share of sequences that got each."""


def flops(
    model: Backbone,
    length: int,
    density: float,
    chosen: Chosen = MappingProxyType({}),
    picked: Shares = MappingProxyType({}),
) -> dict[str, float]:
    """Operations of the attention of all sites, forward, for one sequence (formulas in ops.cost).

    Where a pattern chooses or an indexer picks, the mean over what was chosen and picked.
    """
    dense = sum(cost.attention_flops(site.heads, site.dim, site.pairs(length)) for site in model.sites)
    indexer = routing = 0.0
    for router, own, width in routed_indexers(model):
        for work in own.work(length, picked.get(router.site)):
            index = index_features(work.indexer, width)
            done = scoring(work.indexer.scorer(index), router.pattern, work.first, work.last, chosen.get(router.site))
            done += work.indexer.projection_flops(work.last) - work.indexer.projection_flops(work.known)
            done += router.precision.flops(sum(index.numbers(work.last)) - sum(index.numbers(work.known)))
            indexer += work.share * done
        routing += own.routing_flops(length)
    return {
        "dense_attention": dense,
        "indexer": indexer,
        "select": routing + sum(router.pattern.flops(length) for router in routers_of(model)),  # comparisons cost none
        "sparse_attention": dense * density,
    }


def scoring(index: Scorer, pattern: Pattern, first: int, last: int, chosen: list[dict[str, float]] | None) -> float:
    """Operations of the index scores of some queries in a row: of all pairs that the pattern lets compete; where it
    chooses, of each entry's pairs the share of queries that got it.

    Args:
        first: number of the first query; last: one past the last.
    """

    def of(scorer: Scorer, zones: Zones | tuple[Zones, ...]) -> float:
        return scorer.cost(zones, last) - (scorer.cost(zones, first) if first else 0.0)

    if chosen is None:
        return of(index, pattern.zones())
    entries = [of(index.of_group(0), one.zones()) for one in pattern.library]
    shares = [sum(share * cost for share, cost in zip(group.values(), entries, strict=True)) for group in chosen]
    return sum(shares) * max(index.groups // len(chosen), 1)


def parameters(model: Backbone) -> dict[str, float]:
    """Parameters of all sites; the indexers' without their key norms, which stand apart."""
    counts = [indexer.parameter_counts() for _, indexer, _ in routed_indexers(model)]
    indexer, norm = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0)
    total = sum(p.numel() for p in model.parameters())
    pattern = sum(p.numel() for p in model.groups()["patterns"])
    return {
        "total": total, "indexer": indexer, "indexer_norm": norm, "indexer_share": indexer / total, "pattern": pattern,
    }  # fmt: skip


def indexer_megabytes(model: Backbone, length: int, picked: Shares = MappingProxyType({})) -> float:
    """What the indexers hold while a sequence is processed: weights and one key per entry [MB, 2^20 bytes].

    All as float32: whatever the format of scores, this suite keeps its keys so.
    """
    held = 0.0
    for router, indexer, width in routed_indexers(model):
        held += sum(p.numel() for p in indexer.parameters())
        for work in indexer.work(length, picked.get(router.site)):
            features = index_features(work.indexer, width)
            held += work.share * (features.numbers(work.last)[1] - features.numbers(work.known)[1])
    return held * 4 / 2**20
