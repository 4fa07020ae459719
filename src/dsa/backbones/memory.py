"""Where training keeps what its backward pass needs."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.autograd.graph import save_on_cpu


@dataclass(frozen=True)
class Memory:
    """How training saves memory. Neither way changes a gradient, and both may be had together.

    Args:
        checkpoint: keep the inputs of each layer alone, and recompute it in the backward pass.
        offload: keep what the backward pass needs in the host's memory, pinned where there is a GPU.
    """

    checkpoint: bool = False
    offload: bool = False

    def saving(self) -> AbstractContextManager[object]:
        """Around a forward pass: what is saved within for the backward pass lies where it is to lie."""
        return save_on_cpu(pin_memory=torch.cuda.is_available()) if self.offload else nullcontext()
