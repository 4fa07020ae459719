"""Attention over the keys that a router chose, or over every earlier key."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa import ops
from dsa.backbones.contracts import Observation, Pass, Site, SiteInputs
from dsa.backbones.router import Router, dense_target, named
from dsa.ops import Rotation

Losses = dict[str, Float[Tensor, ""]]


class SparseAttention(nn.Module):
    """Multi-head attention with rotary positions, each query over its selected keys.

    Args:
        site: number of this layer.
        d_model: width of the hidden states.
        heads: attention heads; each has d_model / heads dims.
    """

    def __init__(self, site: int, d_model: int, heads: int) -> None:
        super().__init__()
        self.site = Site(site, d_model, heads, heads, d_model // heads)
        self.to_qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.to_out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, router: Router | None
    ) -> tuple[Float[Tensor, "batch time width"], Losses]:
        """Attention output, and the router's losses where the pass teaches."""
        q, k, v = rearrange(self.to_qkv(x), "b t (n h d) -> n b h t d", n=3, h=self.site.heads)
        q, k = rotary(q), rotary(k)
        if how.cache is not None:
            k, v = (how.cache.extend(name, self.site.index, new, 2) for name, new in (("key", k), ("value", v)))
        if how.watch is not None:
            how.watch(SiteInputs(self.site, x, q, k, rotary))
        if how.sparse and router is not None:
            out, losses = attend_routed(self.site.index, router, x, q, k, v, rotary, how)
        else:
            with named("attend"):
                out, losses = attend_dense(q, k, v), {}
        return self.to_out(rearrange(out, "b h t d -> b t (h d)")), losses


def attend_dense(q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch head time dim"]:
    """Attention of every query over every key up to itself; the last query stands at the last key."""
    time, keys = q.shape[2], k.shape[2]
    if time == keys:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.ones(time, keys, dtype=torch.bool, device=q.device).tril(keys - time)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_routed(
    site: int, router: Router, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rotary: Rotation, how: Pass
) -> tuple[Float[Tensor, "batch head time dim"], Losses]:
    """Attention over what the router chose, its losses, and word of it to whoever observes the pass."""
    routed = router.route(site, x, q, k, rotary, how)
    selection, cast = routed.selection, routed.cast
    groups = 1 if cast is None else cast.queries.shape[1]
    wants_target = (how.teach and cast is not None) or how.observe is not None
    with named("attend"):
        if selection is None:
            out = attend_dense(q, k, v)
        elif wants_target:
            out, target = ops.attend_with_target(q, k, v, selection, groups, backend=router.backend)
        else:
            out, _ = ops.attend(q, k, v, selection, backend=router.backend)
    if selection is None and wants_target:
        target = dense_target(q, k, router.backend, groups)
    losses = router.losses(routed, target) if how.teach and cast is not None else {}
    if how.observe is not None:
        how.observe(Observation(site, q, k, target.logsumexp, selection, routed.features, cast, router.pattern.zones()))
    return out, losses
