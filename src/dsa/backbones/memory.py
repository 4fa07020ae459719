"""Where training keeps what its backward pass needs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from dsa.checks import flag, null_or_positive
from dsa.data.batch import IGNORE


@dataclass(frozen=True)
class Memory:
    """How training saves memory. All ways may be had together; none changes a gradient but chunk, by its rounding.

    Args:
        checkpoint: keep the inputs of each layer alone, and recompute it in the backward pass.
        offload: keep what the backward pass needs in the host's memory, pinned where there is a GPU.
        chunk: tokens of a batch whose logits are held at a time; None: all of them.
    """

    checkpoint: bool = False
    offload: bool = False
    chunk: int | None = None

    def saving(self) -> AbstractContextManager[object]:
        """Around a forward pass: what is saved within for the backward pass lies where it is to lie."""
        return save_on_cpu(pin_memory=torch.cuda.is_available()) if self.offload else nullcontext()


def memory_of(node: dict[str, Any]) -> Memory:
    """How a configuration asks training to save memory.

    Raises:
        ValueError: a setting is impossible.
    """
    return Memory(
        checkpoint=flag(node["checkpoint"], "memory.checkpoint"),
        offload=flag(node["offload"], "memory.offload"),
        chunk=null_or_positive(node["chunk"], "memory.chunk", "tokens whose logits are held at a time; null is all"),
    )


def token_losses(
    logits: Float[Tensor, "batch time vocab"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Cross-entropy of each position [nats]; 0 of one that asks for nothing."""
    return F.cross_entropy(logits.float().mT, targets, ignore_index=IGNORE, reduction="none")


def losses_in_chunks(
    head: Callable[[Tensor], Tensor],
    states: Float[Tensor, "batch time width"],
    targets: Int[Tensor, "batch time"],
    chunk: int,
) -> Float[Tensor, "batch time"]:
    """Cross-entropy of each position [nats] without the logits of all: a chunk's are recomputed for its gradient.

    Args:
        head: from last hidden states to logits.
        chunk: tokens.
    """

    def losses(states: Tensor, targets: Tensor) -> Tensor:
        return token_losses(head(states), targets)

    rows = states.flatten(0, 1)[None], targets.flatten()[None]
    parts = zip(*(each.split(chunk, 1) for each in rows), strict=True)
    found = [checkpoint(losses, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat(found, 1).view(targets.shape)
