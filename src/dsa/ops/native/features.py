"""What a lightning indexer makes of its projection, on the fused CPU kernels."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsa.ops.native.arguments import address, call, loaded, single, structure, workspace
from dsa.ops.rotary import Rotation

Features = structure(
    "Features",
    "*projected rows time heads dim half rest *cosine *sine *weight *bias eps *queries *keys *others *grad_queries "
    "*grad_keys *grad_others *grad *parts *grad_weight *grad_bias threads",
    eps=ctypes.c_float,
)


def lightning_features(
    projected: Float[Tensor, "batch time width"], heads: int, weight: Float[Tensor, "dim"], bias: Float[Tensor, "dim"],
    eps: float, rotary: Rotation, rotary_dim: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As `reference.lightning_features`."""
    turned = rotary.table(len(weight) if rotary_dim is None else rotary_dim)
    queries, keys, rest = LightningFeatures.apply(projected, heads, weight, bias, eps, *turned)
    return queries, keys, rest


class LightningFeatures(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, heads: int, weight: Tensor, bias: Tensor, eps: float, cosine: Tensor, sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        alive = [single(x).contiguous() for x in (projected, weight, bias, cosine, sine)]
        args = described(alive, heads, eps)
        batch, time = projected.shape[:2]
        found = [torch.empty(batch, 1, time, *own) for own in ((heads, args.dim), (args.dim,), (args.rest,))]
        args.queries, args.keys, args.others = map(address, found)
        call(loaded("features.cpp", (Features,)).features_forward, ctypes.byref(args), result=None)
        ctx.save_for_backward(*alive)
        ctx.heads, ctx.eps, ctx.dtypes = heads, eps, [x.dtype for x in (projected, weight, bias)]
        ctx.set_materialize_grads(False)
        queries, keys, rest = (x.to(projected.dtype) for x in found)
        return queries, keys, rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        alive = ctx.saved_tensors
        args = described(alive, ctx.heads, ctx.eps)
        given = [None if grad is None else single(grad).contiguous() for grad in grads]
        args.grad_queries, args.grad_keys, args.grad_others = map(address, given)
        found = [torch.empty_like(x) for x in alive[:3]]
        args.grad, args.grad_weight, args.grad_bias = map(address, found)
        kernels = loaded("features.cpp", (Features,))
        args.parts = address(workspace.take("features_parts", call(kernels.features_parts, ctypes.byref(args))))
        call(kernels.features_backward, ctypes.byref(args), result=None)
        projected, weight, bias = (x.to(dtype) for x, dtype in zip(found, ctx.dtypes, strict=True))
        return projected, None, weight, bias, None, None, None


def described(tensors: Sequence[Tensor], heads: int, eps: float) -> Any:
    """What the kernels are told of a projection, the norm's parameters and the table of angles."""
    projected, weight, _, cosine, _ = tensors
    (batch, time, width), dim = projected.shape, len(weight)
    args = Features(rows=batch * time, time=time, heads=heads, dim=dim, half=cosine.shape[1], eps=eps)
    args.rest, args.threads = width - (heads + 1) * dim, torch.get_num_threads()
    args.projected, args.weight, args.bias, args.cosine, args.sine = map(address, tensors)
    return args
