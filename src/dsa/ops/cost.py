"""What each part costs: floating-point operations of one layer and one sequence, one multiply-add counted as 2."""


def causal_pairs(length: int) -> int:
    """Pairs of a query and a key at or before it."""
    return length * (length + 1) // 2


def kept_pairs(length: int, k: int) -> int:
    """Pairs that remain if every query keeps its min(k, t + 1) keys."""
    k = min(k, length)
    return k * length - k * (k - 1) // 2


def attention_flops(heads: int, dim: int, pairs: float, backward: bool = False) -> float:
    """Logits and weighted values over `pairs` (query, key) pairs: 4 H D a pair forward, 8 H D backward."""
    return (8 if backward else 4) * heads * dim * pairs


def indexer_flops(heads: int, dim: int, length: int, d_model: int, weighted: bool = True) -> float:
    """Index scores of all causal pairs, and the projections that give queries, keys and head weights.

    A pair costs 2 H_I d_I for the dot products and 3 H_I for ReLU, weight and sum.
    """
    projections = 2 * d_model * (heads * dim + dim + (heads if weighted else 0)) * length
    return (2 * heads * dim + 3 * heads) * causal_pairs(length) + projections


def indexer_loss_flops(
    index_heads: int, index_dim: int, heads: int, dim: int, pairs: float, backward: bool = False
) -> float:
    """Attention logits, 2 H D a pair, and index scores, 2 H_I d_I + 3 H_I a pair; backward the scores twice more."""
    scores = (2 * index_heads * index_dim + 3 * index_heads) * pairs
    return 2 * scores if backward else 2 * heads * dim * pairs + scores


def break_even(index_width: int, attention_width: int, k: int) -> float:
    """Length from which index plus sparse attention cost fewer operations than dense attention, forward.

    L > k / (1 - sqrt(rho)) with rho = index_width / (2 attention_width); infinite if rho >= 1.

    Args:
        index_width: H_I x d_I.
        attention_width: H x D.
    """
    rho = index_width / (2 * attention_width)
    return k / (1 - rho**0.5) if rho < 1 else float("inf")
