"""What each part costs: floating-point operations of one layer and one sequence, one multiply-add counted as 2."""

import torch

from dsa.ops.zones import Zones, spans


def causal_pairs(length: int) -> int:
    """Pairs of a query and a key at or before it."""
    return length * (length + 1) // 2


def kept_pairs(length: int, k: int) -> int:
    """Pairs that remain if every query keeps its min(k, t + 1) keys."""
    k = min(k, length)
    return k * length - k * (k - 1) // 2


def entry_pairs(length: int, stride: int, window: int) -> int:
    """Pairs of a query with its nearest tokens and with an entry for each `stride` tokens that are all there.

    Args:
        window: how many of the nearest tokens, the query's own among them.
    """
    return kept_pairs(length, window) + sum((t + 1) // stride for t in range(length))


def scored_pairs(zones: Zones, length: int, unit: int = 1, forced: Zones = ()) -> int:
    """Pairs of a query and a unit that competes for it, whatever its budget: what an indexer has to score.

    Args:
        unit: tokens per unit.
        forced: what the scorer forces; it competes no more.
    """
    every = spans(zones, torch.zeros(1, 1, length, dtype=torch.long), unit=unit, forced=forced)
    return sum(int(span.count.sum()) for span in every if not span.forced)


def banded_pairs(zones: Zones, length: int, first: int, last: int | None, unit: int = 1, forced: Zones = ()) -> int:
    """Pairs of a query and a key that competes for it at some distances; of one that tokens share, once in each zone.

    Args:
        first, last: nearest and farthest distance; None: any.
        unit: tokens that share a key.
        forced: what the scorer forces.
    """
    time, pairs = torch.arange(length), 0
    for span in spans(zones, torch.zeros(1, 1, length, dtype=torch.long), forced=forced):
        if span.forced:
            continue
        reach = 0 if last is None else (time - last - span.start).clamp(min=0)
        low = span.start + -(-reach // span.step) * span.step
        most = torch.minimum(time - first, span.start + (span.count - 1) * span.step)
        high = span.start + (most - span.start) // span.step * span.step
        number = torch.minimum((high - low) // span.step, high // unit - low // unit) + 1
        pairs += int(number.where(high >= low, 0).sum())
    return pairs


def attention_flops(heads: int, dim: int, pairs: float, backward: bool = False) -> float:
    """Logits and weighted values over `pairs` (query, key) pairs: 4 H D a pair forward, 8 H D backward."""
    return (8 if backward else 4) * heads * dim * pairs


def index_pair_flops(heads: int, dim: int) -> int:
    """One index score: 2 H_I d_I for the dot products and 3 H_I for ReLU, weight and sum."""
    return 2 * heads * dim + 3 * heads


def indexer_loss_flops(
    index_heads: int, index_dim: int, heads: int, dim: int, pairs: float, backward: bool = False
) -> float:
    """Attention logits, 2 H D a pair, and index scores, 2 H_I d_I + 3 H_I a pair; backward the scores twice more."""
    scores = index_pair_flops(index_heads, index_dim) * pairs
    return 2 * scores if backward else 2 * heads * dim * pairs + scores
