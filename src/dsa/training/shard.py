"""Training in shards (FSDP2): each process keeps a part of the weights, their gradients and the optimiser's states.

Zhao et al. 2023, PyTorch FSDP, https://arxiv.org/abs/2304.11277; torch's `fully_shard`.
"""

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from dsa.backbones import Backbone
from dsa.training.stages import Group


def sharding() -> ModelParallelStrategy:
    """A strategy for one fit of a module that shards itself; its checkpoints are whole files."""
    return ModelParallelStrategy(save_distributed_checkpoint=False)


def shard(model: Backbone, groups: list[Group], device: torch.device, world: int) -> list[Group]:
    """Leave each process its part of a model, in place; a pass gathers one of its layers at a time.

    Args:
        groups: what learns.
        device: on which the process computes.
        world: number of processes.

    Returns: the same groups, of the parameters that the model has from now on.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    mesh = init_device_mesh(device.type, (world,))
    for layer in model.layer_list:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "run")
    now = dict(model.named_parameters())
    return [group._replace(parameters=[now[names[one]] for one in group.parameters]) for group in groups]


def whole(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model that may be sharded; all processes call it together."""
    return {name: gathered(weight) for name, weight in model.state_dict().items()}


def gathered(x: Tensor) -> Tensor:
    """All of a tensor of which each process may have a part."""
    return x.full_tensor() if isinstance(x, DTensor) else x
