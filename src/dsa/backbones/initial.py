"""Initial weights, each a function of a seed and its own name alone."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dsa.indexers import Indexer


@torch.no_grad()
def draw(module: nn.Module, seed: int, prefix: str, std: Callable[[str, Tensor], float]) -> None:
    """Norms become 1 (and 0 for their shifts); every other weight is normal, drawn from (seed, prefix + its name).

    Args:
        std: standard deviation of a weight, by its name and the weight itself.
    """
    norms = {id(p) for m in module.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) for p in m.parameters()}
    for name, parameter in module.named_parameters():
        if parameter.is_meta:  # only the sizes are asked for
            continue
        if id(parameter) in norms:
            parameter.fill_(float(name.endswith("weight")))
            continue
        digest = hashlib.sha256(f"{seed}/{prefix}{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        values = torch.empty(parameter.shape).normal_(0.0, std(name, parameter), generator=generator)
        parameter.copy_(values)


def draw_indexer(indexer: Indexer, seed: int, site: int) -> None:
    """The initial weights of an indexer's parts, of its own standard deviation: a function of (seed, site, name)."""
    for part in indexer.parts().values():  # each as it would begin alone
        draw(part, seed, f"blocks.{site}.attention.indexer.", lambda name, weight: indexer.init)
