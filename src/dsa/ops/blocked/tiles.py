"""How queries and keys are cut up."""

from collections.abc import Iterator

from jaxtyping import Bool
from torch import Tensor

TILE = 1 << 20  # elements of the largest temporary: larger ones leave the cache
WIDTH = 512  # keys of a tile


def blocks(length: int, per_query: int) -> Iterator[slice]:
    """Slices of the queries such that a tile of `per_query` elements a query stays below TILE; at least one."""
    size = max(16, TILE // max(per_query, 1))
    for start in range(0, max(length, 1), size):
        yield slice(start, min(start + size, length))


def columns(chosen: Bool[Tensor, "batch group row key"]) -> list[slice]:
    """The tiles of a fixed grid over the keys in which anything is chosen."""
    keys = chosen.shape[-1]
    places = chosen.flatten(0, -2).any(0).nonzero()[:, 0] // WIDTH
    return [slice(place * WIDTH, min((place + 1) * WIDTH, keys)) for place in places.unique().tolist()]
