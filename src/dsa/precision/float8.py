"""8-bit floats with scales."""

import torch
from jaxtyping import Float
from torch import Tensor

from dsa.checks import positive
from dsa.ops import IndexFeatures
from dsa.precision.base import Bits, Precision, evenly, in_groups, straight_through


class Float8(Precision):
    """Queries and keys in e4m3, one scale per row and `group` dims (DeepSeek-V3.2 inference code, act_quant).

    Args:
        group: dims that share a scale.
        hadamard: rotate queries and keys by the same orthonormal Hadamard matrix first: scores stay, outliers spread.
    """

    def __init__(self, group: int, hadamard: bool) -> None:
        self.group, self.hadamard = positive(group, "precision.group"), hadamard

    def cast(self, features: IndexFeatures) -> IndexFeatures:
        queries, keys = features.queries, features.keys
        if self.hadamard:
            matrix = hadamard(queries.shape[-1]).to(queries)
            queries, keys = queries @ matrix, keys @ matrix
        return features._replace(queries=self.rounded(queries), keys=self.rounded(keys))

    def bits(self, features: IndexFeatures) -> Bits:
        return evenly(features, 8, 8)

    def rounded(self, x: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row dim"]:
        """x through e4m3, each group of dims scaled to the format's range."""
        dim = x.shape[-1]
        group = min(self.group, dim)
        parts = in_groups(x.detach(), group)
        largest = torch.finfo(torch.float8_e4m3fn).max
        scale = parts.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny * largest) / largest
        parts = (parts / scale).clamp(-largest, largest).to(torch.float8_e4m3fn).to(x.dtype) * scale
        return straight_through(x, parts.flatten(-2)[..., :dim])


def hadamard(dim: int) -> Float[Tensor, "dim dim"]:
    """Orthonormal Hadamard matrix (Sylvester's construction).

    Raises:
        ValueError: dim is not a power of two.
    """
    if dim & (dim - 1):
        raise ValueError(f"precision.hadamard = true with indexer.dim = {dim}: the dim must be a power of two.")
    matrix = torch.ones(1, 1)
    while len(matrix) < dim:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix * dim**-0.5
