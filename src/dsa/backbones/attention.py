"""Attention over the keys that a router chose, or over every earlier key."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa import ops
from dsa.backbones.contracts import Attended, Observation, Pass, Site, SiteInputs
from dsa.backbones.entries import Entries
from dsa.backbones.router import Router, dense_target, named
from dsa.ops import Rotation, Selection, TrueAttention
from dsa.patterns import Choice

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

    def tabulate(self, rotary: Rotation) -> None:
        """Make the tables of the rotation that a layer asks for."""
        rotary.table(self.site.dim)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, router: Router | None
    ) -> tuple[Float[Tensor, "batch time width"], Losses]:
        """Attention output, and the router's losses where the pass teaches."""
        heads = self.site.heads
        each = rearrange(self.to_qkv(x), "b t (n d) -> b n t d", n=3 * heads)
        q, k = rotary(each[:, : 2 * heads]).chunk(2, 1)
        out, losses = attend(self.site, router, x, q, k, each[:, 2 * heads :], rotary, how)
        return self.to_out(rearrange(out, "b h t d -> b t (h d)")), losses


def attend(
    site: Site, router: Router | None, x: Float[Tensor, "batch time width"], q: Float[Tensor, "batch head time dim"],
    k: Float[Tensor, "batch kv_head time dim"], v: Float[Tensor, "batch kv_head time dim"], rotary: Rotation, how: Pass,
) -> tuple[Float[Tensor, "batch head time dim"], Losses]:  # fmt: skip
    """What a site of any backbone does with its router: attention as the pass wants it, and the router's losses.

    Args:
        router: None attends densely.
        x: hidden states that an indexer sees.
        q, k, v: of the tokens of this pass, rotated; what was before is in the pass's cache.
        rotary: the rotation of these positions.
    """
    if how.cache is not None:
        k, v = (how.cache.extend(name, site.index, new, 2) for name, new in (("key", k), ("value", v)))
    inputs = SiteInputs(site, x, q, k, rotary)
    if how.watch is not None:
        how.watch(inputs)
    if how.sparse and router is not None:
        return attend_routed(router, inputs, v, how)
    with named("attend", q.device):
        out = attend_everything(site, q, k, v, None, "auto" if router is None else router.backend)
    if how.after is not None:
        how.after(Attended(site, v, out))
    return out, {}


@ops.opaque
def attend_routed(
    router: Router, inputs: SiteInputs, v: Float[Tensor, "batch kv_head key dim"], how: Pass,
    entries: Entries | None = None,
) -> tuple[Float[Tensor, "batch head time dim"], Losses]:  # fmt: skip
    """Attention over what the router chose, its losses, and word of it to whoever observes the pass.

    Args:
        inputs: of the tokens of this pass, with the keys of those before it too; v: the values of all.
        entries: what is read in place of the tokens, whose keys and values are then those of their entries.
    """
    site, q, k, sink = inputs.site, inputs.queries, inputs.keys, inputs.sink
    backend, scale, cap = router.backend, site.scale, site.cap

    def attention() -> TrueAttention:
        return dense_target(site, q, k, backend, sink=sink) if entries is None else entries.attention(q)

    routed = router.route(site, inputs.hidden, attention, inputs.rotary, how, inputs.latent)
    selection, cast = routed.selection, routed.cast
    groups = 1 if selection is None else selection.positions.shape[1]
    groups = groups if cast is None else max(groups, cast.groups)
    wants_target = (how.teach and cast is not None) or how.observe is not None
    with named("attend", q.device):
        if entries is not None:
            out, logsumexp = entries.attend(q, selection)
            target = entries.target(q, logsumexp, groups)
        elif selection is None:
            out = attend_everything(site, q, k, v, sink, backend)
        elif wants_target:
            out, target = ops.attend_with_target(
                q, k, v, selection, groups, sink, scale=scale, cap=cap, backend=backend
            )
        else:
            out, _ = ops.attend(q, k, v, selection, sink, scale=scale, cap=cap, backend=backend)
    if entries is None and selection is None and wants_target:
        target = dense_target(site, q, k, backend, groups, sink)
    if how.after is not None:
        how.after(Attended(site, v, out))
    if routed.choice is not None:
        out = out * gate_of(routed.choice, site.heads).to(out.dtype)
    losses = {}
    if how.teach and cast is not None:
        losses = router.losses(routed, target.emphasised(how.emphasis.get(site.index)))
        if how.taught is not None:
            how.taught(site.index, losses)
    if how.observe is not None:
        zones, features = router.pattern.zones(), routed.features
        bits = None if features is None else router.bits(features)
        how.observe(
            Observation(
                site.index, q, k, target.logsumexp, selection, features, cast, zones, scale, cap, bits, routed.choice,
                sink, entries, router.scorer(cast),
            )
        )  # fmt: skip
    return out, losses


def gate_of(choice: Choice, heads: int) -> Float[Tensor, "batch head time 1"]:
    """What each head's output is multiplied by: 1, through which the language-model loss teaches the choice."""
    return choice.gate.repeat_interleave(heads // choice.gate.shape[1], 1)[..., None]


def attend_everything(
    site: Site, q: Tensor, k: Tensor, v: Tensor, sink: Float[Tensor, "head"] | None, backend: str
) -> Float[Tensor, "batch head time dim"]:
    """Dense attention; with learned sinks or a cap where there are some: over a selection of every earlier key."""
    if sink is None and site.cap is None:
        return ops.attend_dense(q, k, v, site.scale)
    keys = torch.arange(k.shape[2], device=q.device)
    time = keys[-q.shape[2] :, None]
    positions = torch.where(keys <= time, keys, -1).expand(len(q), 1, -1, -1).contiguous()
    counts = (time[:, 0] + 1).expand(len(q), 1, -1).contiguous()
    every = Selection(positions, counts)
    return ops.attend(q, k, v, every, sink, scale=site.scale, cap=site.cap, backend=backend)[0]


def mean_losses(sites: Sequence[Losses]) -> Losses:
    """The mean of each loss over the sites that have it."""
    names = dict.fromkeys(name for losses in sites for name in losses)
    return {name: torch.stack([losses[name] for losses in sites if name in losses]).mean() for name in names}
