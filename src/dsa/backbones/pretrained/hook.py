"""What reaches into a pretrained model, and what is known of each of its attention layers and of the pass under way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from dsa.backbones.attention import Losses
from dsa.backbones.contracts import Cache, Pass, Site
from dsa.backbones.pretrained.masks import stretches
from dsa.backbones.router import Router


@dataclass
class Layer:
    """An attention layer of somebody's model.

    Args:
        site: None while the layer stays dense.
        hidden: of the call under way: it lives from the module's call to that of the interface within.
        past: the cache of transformers that the call was given, likewise.
        latent: that its queries are projected from, likewise, if there is one; rank: its width, 0 without.
        shapes: width, heads, key/value heads and their dims; values: dims of the values.
        window: keys that a query sees at most, if the layer has a window of its own or chunks; cap: of its logits, if
            they have one; sink: it has learned sinks.
    """

    hook: "Hook"
    site: Site | None = None
    hidden: Tensor | None = None
    past: Any = None
    latent: Tensor | None = None
    window: int | None = None
    cap: float | None = None
    sink: bool = False
    shapes: tuple[int, ...] = ()
    values: int = 0
    rank: int = 0
    scale: float | None = None

    def take(self) -> "Given":
        """What the call under way was given, which is kept no longer."""
        assert self.hidden is not None
        given = Given(self.hidden, self.past, self.latent)
        self.forget()
        return given

    def forget(self) -> None:
        """No call is under way."""
        self.hidden = self.past = self.latent = None


class Given(NamedTuple):
    """What a call of a layer was given beside queries, keys and values, as `Layer` has it."""

    hidden: Tensor
    past: Any
    latent: Tensor | None


@dataclass
class Read:
    """What one site has read of some rows.

    Args:
        cache: index keys; tokens: how many.
        last: the key of the last one, by which a cache of transformers in another order is known.
    """

    cache: Cache = field(default_factory=Cache)
    tokens: int = 0
    last: Tensor | None = None


@dataclass
class Hook:
    """What reaches into one model.

    Args:
        router: the router of a site, None while it is dense.
        rope_base: wavelength base of the indexers' rotary embedding.
        context: tokens of the longest text that the model is made for; None: any.
        wanted: how the next forward pass attends.
        how: of the forward pass under way; parts: the same for rows apart, by the first of them.
        losses: of its sites so far.
        handles: of what was put into the model.
        restore: gives the model back the attention implementation that it had.
        masked: the last mask of a pass and what `stretches` found in it: layers are given the same one.
        reads: what was read so far, by the cache of transformers that holds its keys; by site and row.
    """

    router: Callable[[int], Router | None]
    rope_base: float
    context: int | None
    restore: Callable[[], None]
    layers: list[Layer] = field(default_factory=list)
    wanted: Pass = field(default_factory=Pass)
    how: Pass | None = None
    parts: dict[int, Pass] = field(default_factory=dict)
    losses: list[Losses] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    masked: "tuple[ReferenceType[Tensor], list[tuple[slice, slice]]] | None" = None
    reads: "WeakKeyDictionary[Any, dict[tuple[int, int], Read]]" = field(default_factory=WeakKeyDictionary)

    def leave(self) -> None:
        """Reach into the model no more."""
        for handle in self.handles:
            handle.remove()
        self.how = None
        self.restore()

    @contextmanager
    def passing(self, how: Pass) -> Iterator[list[Losses]]:
        """Forward passes within attend like this; the losses of the sites are in the list at the end."""
        before, self.wanted, self.losses = self.wanted, how, []
        try:
            yield self.losses
        finally:
            self.wanted = before
            self.forget()

    @contextmanager
    def during(self, how: Pass | None, parts: dict[int, Pass]) -> Iterator[list[Losses]]:
        """A layer of this pass runs, now or once more; the losses of its sites are in the list at the end."""
        before = self.how, self.parts, self.losses
        self.how, self.parts, self.losses = how, parts, []
        try:
            yield self.losses
        finally:
            self.how, self.parts, self.losses = before

    def begin(self, *_: Any) -> None:
        """A forward pass of the model begins: nothing of another one is seen."""
        self.how, self.parts, self.masked = self.wanted.begun(), {}, None
        self.losses.clear()

    def end(self, model: nn.Module, _: Any, answer: Any) -> None:
        """A forward pass of the model ended, or failed without an answer: nothing of it stays. Where transformers
        itself runs layers once more in the backward pass, they need what it decided: that stays until the next pass.

        Raises:
            ValueError: layers ended that never came by here.
        """
        if answer is not None and any(layer.hidden is not None for layer in self.layers):
            self.forget()
            raise ValueError(
                "model: its layers attend through another implementation than the one that was put into it, as after "
                "set_attn_implementation. Call dsa.detach(model) before that, and attach again."
            )
        if not (torch.is_grad_enabled() and any(runs_again(module) for module in model.modules())):
            self.forget()

    def forget(self) -> None:
        """No pass is under way."""
        self.how, self.parts, self.masked, self.losses = None, {}, None, []
        for layer in self.layers:
            layer.forget()

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model is at no pass, and has read nothing."""
        now: dict[str, Any] = {"how": None, "parts": {}, "losses": [], "masked": None, "reads": None}
        return vars(self) | now

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, reads=WeakKeyDictionary())  # which no file holds

    def stretches(self, mask: Tensor | None, rows: int, keys: int) -> list[tuple[slice, slice]]:
        """What `stretches` finds in a mask; in one that the layer before was given too, it was found there."""
        if mask is None:
            return list(stretches(mask, rows, keys))
        if self.masked is None or self.masked[0]() is not mask:
            self.masked = ref(mask), list(stretches(mask, rows, keys))
        return self.masked[1]

    def part(self, rows: slice) -> Pass:
        """The pass of some rows: what shared routers decided for other rows is not seen."""
        assert self.how is not None
        return self.parts.setdefault(rows.start or 0, self.how.begun())


def runs_again(module: nn.Module) -> bool:
    """Whether transformers runs a module once more in the backward pass."""
    return module.training and getattr(module, "gradient_checkpointing", False) is True


LAYER = "dsa_layer"
"""Attribute of an attention module that a hook reaches: there it lives as long as the module, and is copied with it."""


def release(model: nn.Module) -> None:
    """Take every hook out of a model: it is as it was before."""
    hooks = {}
    for module in model.modules():
        layer: Layer | None = getattr(module, LAYER, None)
        if layer is not None:
            hooks[id(layer.hook)] = layer.hook
            delattr(module, LAYER)
    for hook in hooks.values():
        hook.leave()
