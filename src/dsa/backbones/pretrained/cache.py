"""The cache that transformers writes keys and values to, in memory that grows in place."""

from typing import Any

from torch import Tensor

from dsa.backbones.cache import Cache
from dsa.pretrained.libraries import transformers

transformers()  # says how to get it
from transformers.cache_utils import DynamicCache, DynamicLayer  # noqa: E402


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, to which a token is added without a copy of those before it.

    Args:
        room: tokens for which there is room from the beginning.
    """

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.memory = Cache(room)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What was kept and the new tokens behind it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self.keys = self.extended("keys", self.keys, key_states)
        self.values = self.extended("values", self.values, value_states)
        return self.keys, self.values

    def extended(self, name: str, now: Tensor, new: Tensor) -> Tensor:
        """`now` with the new tokens behind it: in place, unless somebody put another tensor there, as beam search."""
        kept, before = self.memory.kept.get((name, 0)), now.shape[2] if now.dim() == 4 else 0
        if kept is not None and before and kept.data_ptr() == now.data_ptr() and len(kept) == len(now):
            self.memory.used[name, 0] = before  # fewer than there were, where it was cut
        else:
            self.memory.forget(name, 0)
            if before:
                self.memory.extend(name, 0, now, 2)
        return self.memory.extend(name, 0, new, 2)


class GrowingCache(DynamicCache):
    """transformers' growing cache, without its copy of all tokens for each new one: `past_key_values` of a model.

    Layers with a window of their own keep what transformers keeps of them.

    Args:
        config: of the model.
        room: tokens for which there is room from the beginning; what is full grows by half.
    """

    def __init__(self, config: Any, room: int = 0) -> None:
        super().__init__(config=config)
        self.layers = [GrowingLayer(room) if type(layer) is DynamicLayer else layer for layer in self.layers]
