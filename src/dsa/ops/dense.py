"""Attention of every query over every key up to itself, by torch's fused kernels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHORT = 256
"""Keys up to which the CPU's kernels of torch 2.13 learn faster in float32 than in bfloat16: forward and backward take
4.0 ms in place of 16 at 64 keys, 10 of 49 at 128, 50 of 69 at 256, and 157 of 188 at 512, where other shapes take
longer (16 rows of 8 heads of 32 dims; Intel Xeon with AMX)."""


def attend_dense(
    q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head key dim"],
    v: Float[Tensor, "batch kv_head key dim"],
    scale: float | None = None,
) -> Float[Tensor, "batch head time dim"]:
    """Attention of every query over every key up to itself; the last query stands at the last key."""
    device = q.device.type
    if device != "cpu" or k.shape[2] > SHORT or not (torch.is_grad_enabled() and q.requires_grad):
        return fused(q, k, v, scale)
    given = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else v.dtype
    with torch.autocast(device, enabled=False):
        return fused(q.float(), k.float(), v.float(), scale).to(given)


def fused(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """In the format that is given, or autocast's."""
    time, keys, grouped = q.shape[2], k.shape[2], q.shape[1] != k.shape[1]
    if time == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped)
    mask = None if time == 1 else torch.ones(time, keys, dtype=torch.bool, device=q.device).tril(keys - time)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)
