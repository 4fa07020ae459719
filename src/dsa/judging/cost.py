"""What a model costs by counting: parameters and operations."""

import torch

from dsa.backbones import Backbone, Router
from dsa.indexers import Indexer
from dsa.ops import IndexFeatures, Rotation, cost


@torch.no_grad()
def index_features(indexer: Indexer, width: int) -> IndexFeatures:
    """An indexer's features of one blank token: their shapes tell what scores and keys cost, whoever wrote it."""
    device = next(indexer.parameters()).device
    return indexer(torch.zeros(1, 1, width, device=device), Rotation(1, 10000.0, device))


def routed_indexers(model: Backbone) -> list[tuple[Router, Indexer, int]]:
    """Every indexer with its router, and the width of the hidden states that it sees."""
    out = []
    for router in model.routers:
        assert isinstance(router, Router)
        if router.indexer is not None:
            out.append((router, router.indexer, model.sites[router.site].width))
    return out


def flops(model: Backbone, length: int, density: float) -> dict[str, float]:
    """Operations of the attention of all sites, forward, for one sequence (formulas in ops.cost)."""
    pairs = cost.causal_pairs(length)
    dense = sum(cost.attention_flops(site.heads, site.dim, pairs) for site in model.sites)
    indexer = 0.0
    for router, own, width in routed_indexers(model):
        index = index_features(own, width)
        indexer += own.scorer(index).cost(router.pattern.zones(), length) + own.projection_flops(length)
        index_heads, index_dim = index.queries.shape[3:]
        queries = length * index.groups * index_heads * index_dim
        indexer += router.precision.flops(queries + keys_of(index, length) * index_dim)
    return {
        "dense_attention": dense,
        "indexer": indexer,
        "select": 0.0,  # comparisons, no arithmetic
        "sparse_attention": dense * density,
    }


def parameters(model: Backbone) -> dict[str, float]:
    """Parameters of all sites; the indexers' without their key norms, which stand apart."""
    counts = [indexer.parameter_counts() for _, indexer, _ in routed_indexers(model)]
    indexer, norm = (sum(part) for part in zip(*counts, strict=True)) if counts else (0, 0)
    total = sum(p.numel() for p in model.parameters())
    return {"total": total, "indexer": indexer, "indexer_norm": norm, "indexer_share": indexer / total}


def indexer_megabytes(model: Backbone, length: int) -> float:
    """What the indexers hold while a sequence is processed: weights and one key per entry [MB, 2^20 bytes]."""
    held = 0
    for _, indexer, width in routed_indexers(model):
        features = index_features(indexer, width)
        held += sum(p.numel() for p in indexer.parameters())
        held += keys_of(features, length) * features.keys.shape[3]
    return held * 4 / 2**20


def keys_of(features: IndexFeatures, length: int) -> int:
    """How many keys there are of a sequence."""
    return length // (features.unit if features.pool == "entry" else 1) * features.keys.shape[1]
