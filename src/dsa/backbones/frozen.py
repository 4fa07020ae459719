"""A model that learns no more."""

import torch
from torch import nn


def held_in(dtype: torch.dtype, model: nn.Module) -> None:
    """Have linear layers hold their weights in the format to which autocast would round them at every pass.

    Under autocast in that format a pass gives the same numbers, bit for bit, and is spared the rounding; without it
    there is no pass any more. An embedding that shares a layer's weight keeps its own.

    Args:
        model: in float32; it must not learn.
    """
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
