"""What every backbone is: sites that routers can be attached to, a forward pass, and groups of what can learn."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dsa.backbones.compressed import misfit
from dsa.backbones.contracts import Output, Pass, Site, Size
from dsa.backbones.generation import generate
from dsa.backbones.memory import Memory, losses_in_chunks
from dsa.backbones.router import Router


class Backbone(nn.Module, ABC):
    """A language model around the attention: `model(tokens[batch, time]) -> logits[batch, time, vocab]`.

    It attends densely until routers are attached. A variant takes `vocab_size` and `seed` besides its settings, and
    writes `run`.

    Attributes:
        given: it comes with weights that somebody trained: it is a base as it is.
        memory: how its training saves memory: `run` recomputes its layers where `recomputes` says so, and takes its
            loss in chunks where `chunks` does.
        vocab_size: number of tokens.
        context: most tokens that it reads; None: it is not said.
        sites: its attention layers, in the order in which a pass meets them.
        routers: what is attached; router_of: the index of each site's router, empty while the attention is dense.
    """

    given: ClassVar[bool] = False
    memory: Memory = Memory()
    vocab_size: int
    context: int | None = None
    sites: tuple[Site, ...]

    def __init__(self) -> None:
        super().__init__()
        self.routers = nn.ModuleList()
        self.router_of: tuple[int, ...] = ()

    @classmethod
    def identity(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """What of its settings decides its numbers."""
        return dict(node)

    @classmethod
    def named_by(cls, node: Mapping[str, Any]) -> str | None:
        """What runs on it are called by in names and tables, by its settings; None: by the option of `model`."""
        return None

    @classmethod
    def size(cls, node: Mapping[str, Any]) -> Size:
        """How large it is, by its settings; a backbone whose settings have other names overrides it.

        Raises:
            ValueError: a setting of these names is missing.
        """
        names = ("layers", "d_model", "ff", "heads")
        if missing := [name for name in names if name not in node]:
            raise ValueError(
                f"model: {cls.__name__} has no setting {' and no '.join(missing)}, by which its memory is planned: "
                "override its classmethod `size`."
            )
        layers, width, ff, heads = (int(node[name]) for name in names)
        return Size(layers, width, ff, heads, vocab=0)

    @abstractmethod
    def run(self, tokens: Int[Tensor, "batch time"], how: Pass) -> Output:
        """One forward pass: logits, and the mean over sites of the losses that routers have (none unless the pass
        teaches). It begins with `how.begun()`, so that nothing of another pass is seen."""

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        return self.run(tokens, Pass()).logits

    def generate(
        self, tokens: Int[Tensor, "batch time"], new: int, *, chunk: int | None = None, temperature: float = 0.0,
        seed: int = 0, how: Pass | None = None,
        attention_mask: Bool[Tensor, "batch time"] | Int[Tensor, "batch time"] | None = None,
    ) -> Int[Tensor, "batch longer"]:  # fmt: skip
        """The tokens with `new` more behind them, as `dsa.backbones.generation.generate`."""
        return generate(
            self, tokens, new, chunk=chunk, temperature=temperature, seed=seed, how=how, attention_mask=attention_mask
        )

    def save_memory(self, memory: Memory) -> None:
        """Train in less memory from now on. A backbone that can recompute its layers overrides `recomputes`, one that
        ends by `answered` overrides `chunks`.

        Raises:
            ValueError: it cannot recompute them, or take its loss in chunks.
        """
        if memory.checkpoint and not self.recomputes:
            raise ValueError(
                f"memory.checkpoint = true: {self.called} cannot recompute its layers; give memory.checkpoint=false."
            )
        if memory.chunk is not None and not self.chunks:
            raise ValueError(
                f"memory.chunk = {memory.chunk}: {self.called} cannot take its loss in chunks; give memory.chunk=null."
            )
        self.memory = memory

    def answered(
        self, head: Callable[[Tensor], Tensor], states: Float[Tensor, "batch time width"], how: Pass,
        losses: dict[str, Float[Tensor, ""]],
    ) -> Output:  # fmt: skip
        """What a pass gives out.

        Args:
            head: from last hidden states to logits.
            states: the last hidden states.
            losses: the mean over sites of each loss.
        """
        if how.targets is None or how.told is None or self.memory.chunk is None:
            return Output(head(states if how.logits else states[:, -1:]), losses)
        how.told(losses_in_chunks(head, states, how.targets, self.memory.chunk))
        return Output(head(states[:, -1:].detach()), losses)

    @property
    def recomputes(self) -> bool:
        """Whether its layers can be recomputed in the backward pass."""
        return False

    @property
    def chunks(self) -> bool:
        """Whether its loss can be taken in chunks of tokens."""
        return False

    @property
    def layer_list(self) -> list[nn.Module]:
        """Its layers: torch compiles each by itself, and a pass gathers one at a time where training is sharded, what
        is in none at once."""
        return []

    def compile_layers(self) -> None:
        """Have torch compile its layers, all but the ops (`dsa.ops.opaque`), at the first pass over rows of each shape.
        What was compiled in this process before is forgotten: torch bounds how much it holds, and what a layer becomes
        is not to depend on that.

        Raises:
            ValueError: it does not say which they are.
        """
        if not self.layer_list:
            raise ValueError(f"compile = true: {self.called} does not say what its layers are; give compile=false.")
        torch.compiler.reset()
        for layer in self.layer_list:
            layer.compile(dynamic=False)

    @property
    def called(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def attach(self, routers: Sequence[Router], of: Sequence[int] | None = None) -> None:
        """Route the sites by these routers; none takes the attention back to dense.

        Args:
            of: index of each site's router; None gives each site its own.

        Raises:
            ValueError: a site has no router, one that reads a later site, or one that cannot choose among its keys.
        """
        which = tuple(range(len(routers)) if of is None else of)
        if routers and len(which) != len(self.sites):
            raise ValueError(f"attach: {len(which)} sites are routed, the backbone has {len(self.sites)}.")
        for site, router in enumerate(which):
            if routers[router].site > site:
                raise ValueError(
                    f"attach: the router of site {site} reads site {routers[router].site}, which is later."
                )
            own = routers[router]
            if (reason := misfit(self.sites[site].stride, own.indexer, own.pattern)) is not None:
                raise ValueError(f"{reason}.")
        self.routers, self.router_of = nn.ModuleList(routers), which

    def router(self, site: int) -> Router | None:
        """The router of a site; None while the attention is dense."""
        if not self.router_of:
            return None
        found = self.routers[self.router_of[site]]
        assert isinstance(found, Router)
        return found

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """What can learn: the backbone from the language-model loss, the indexers from their own, patterns that choose
        from the attention that they capture and, through a gate, from the language-model loss."""
        own = [router.indexer for router in self.routers if isinstance(router, Router) and router.indexer is not None]
        indexers = [p for indexer in own for p in indexer.parameters()]
        taught = {id(p) for p in indexers}
        patterns = [p for p in self.routers.parameters() if id(p) not in taught]
        routed = taught | {id(p) for p in patterns}
        backbone = [p for p in self.parameters() if id(p) not in routed]
        return {"backbone": backbone, "indexers": indexers, "patterns": patterns}
