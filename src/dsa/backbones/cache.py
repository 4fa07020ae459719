"""What a pass that goes on needs of the tokens before it, in memory that grows in place."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.indexers.base import Keep
from dsa.ops import KEY_MARGIN


class Cache:
    """Keys, values, index keys and what else a pass needs of the tokens before it: it then sees `length` more of them
    than it is given.

    What is full grows by half, so that a token costs no copy of those before it. Tensors that carry a gradient are
    copied at every extension instead: what a gradient goes through must not change.

    Args:
        room: tokens for which there is room from the beginning.

    Attributes:
        past: the cache of somebody else's model, which keeps its keys and values there.
    """

    def __init__(self, room: int = 0) -> None:
        self.length, self.room = 0, room
        self.kept: dict[tuple[str, int], Tensor] = {}  # with room behind what is used
        self.used: dict[tuple[str, int], int] = {}
        self.past: Any = None

    def extend(self, name: str, site: int, new: Tensor, axis: int, *, side_by_side: bool = False) -> Tensor:
        """What was kept with the new tokens' part behind it, which is what is kept from now on.

        Args:
            axis: that of the tokens.
            side_by_side: tokens are neighbours in memory, for kernels that read some numbers of every token.
        """
        key = name, site
        used, kept = self.used.get(key, 0), self.kept.get(key)
        total = used + new.shape[axis]
        if torch.is_grad_enabled() and (new.requires_grad or (kept is not None and kept.requires_grad)):
            kept = new if kept is None else torch.cat([kept.narrow(axis, 0, used), new], axis)
        else:
            if kept is None or kept.shape[axis] < total:
                grown = with_room(new, axis, max(self.room, total + used // 2), side_by_side)
                if kept is not None:
                    grown.narrow(axis, 0, used).copy_(kept.narrow(axis, 0, used))
                kept = grown
            kept.narrow(axis, used, total - used).copy_(new)
        self.kept[key], self.used[key] = kept, total
        return kept.narrow(axis, 0, total)

    def recent(
        self, name: str, site: int, new: Float[Tensor, "batch time width"], size: int
    ) -> Float[Tensor, "batch wide width"]:
        """What the pass before left with the new tokens behind it; the last `size` of these are left for the next."""
        before = self.kept.pop((name, site), None)
        whole = new if before is None else torch.cat([before, new], 1)
        if size:
            self.kept[name, site] = whole[:, -size:].clone()
        return whole

    def forget(self, name: str, site: int) -> None:
        """As if nothing had been kept."""
        self.kept.pop((name, site), None)
        self.used.pop((name, site), None)

    @property
    def nbytes(self) -> int:
        """Of all that it holds, with its room."""
        return sum(x.untyped_storage().nbytes() for x in self.kept.values())


class AtSite(Keep):
    """What a cache keeps of one site; of keys, whose tokens are on axis 2, these lie side by side."""

    def __init__(self, cache: Cache, site: int) -> None:
        self.cache, self.site = cache, site

    def all(self, name: str, new: Tensor, axis: int) -> Tensor:
        return self.cache.extend(name, self.site, new, axis, side_by_side=axis == 2)

    def last(self, name: str, new: Float[Tensor, "batch time width"], size: int) -> Float[Tensor, "batch wide width"]:
        return self.cache.recent(name, self.site, new, size)


def with_room(like: Tensor, axis: int, tokens: int, side_by_side: bool) -> Tensor:
    """Memory for so many tokens; those that lie side by side have a margin behind them, which kernels may read."""
    shape = [n for i, n in enumerate(like.shape) if i != axis % like.dim()]
    if side_by_side:
        return like.new_empty(*shape, tokens + KEY_MARGIN).movedim(-1, axis).narrow(axis, 0, tokens)
    shape.insert(axis, tokens)
    return like.new_empty(shape)
