"""Attention that reads one compressed entry for a few tokens, and the nearest tokens raw: DeepSeek-V4's CSA."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsa.backbones.attention import Losses, attend_routed
from dsa.backbones.contracts import Attended, Pass, Site, SiteInputs
from dsa.backbones.entries import Entries
from dsa.backbones.router import Router, named
from dsa.checks import at_least, even, flag
from dsa.indexers import Indexer
from dsa.indexers.blocks import blocks_of, overlapping
from dsa.ops import Rotation, Zone
from dsa.ops.scores import wide
from dsa.patterns import Pattern

EPS = 1e-6
EARLIER = (Zone(first=None),)


@dataclass(frozen=True)
class Compression:
    """What the keys of a model's attention are made of.

    Args:
        stride: tokens that an entry stands for.
        window: how many of the nearest tokens a query reads raw, its own among them.
        rotary_dim: how many dims of a head the rotary embedding turns; None = all.
        overlap: an entry is made of the tokens of the stride before too.
        sink: each head has a learned logit that takes probability and gives no value.
    """

    stride: int
    window: int
    rotary_dim: int | None
    overlap: bool
    sink: bool

    def __post_init__(self) -> None:
        at_least(self.stride, 2, "model.kv_stride", "tokens of an entry")
        at_least(self.window, self.stride, "model.kv_window", "a query has to see the tokens that have no entry yet")
        flag(self.overlap, "model.kv_overlap")
        flag(self.sink, "model.kv_sink")
        if self.rotary_dim is not None:
            at_least(self.rotary_dim, 0, "model.kv_rotary_dim")
            even(self.rotary_dim, "model.kv_rotary_dim", "the rotary embedding turns pairs of dimensions")


class Norm(nn.RMSNorm):
    """The root mean square in float32, whatever the format around it."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS)

    def forward(self, x: Float[Tensor, "*rest dim"]) -> Float[Tensor, "*rest dim"]:
        return super().forward(wide(x)).to(x.dtype)


class Compressor(nn.Module):
    """One entry for every `stride` tokens that are all there  (DeepSeek-V4 report, eqs. 9 to 12; transformers'
    DeepseekV4CSACompressor).

    entry = norm(sum_n softmax_n(gate[n] + place[n]) * key[n]), for each dim apart, over its tokens and those of the
    stride before, of which each has a key and a gate for its own entry and others for the next; rotated as its first
    token. Without overlap over its tokens alone (DeepseekV4HCACompressor).

    Args:
        d_model: width of the hidden states.
        dim: of an entry.
        how: see Compression.
    """

    def __init__(self, d_model: int, dim: int, how: Compression) -> None:
        super().__init__()
        self.how = how
        width = (1 + how.overlap) * dim
        self.to_key, self.to_gate = (nn.Linear(d_model, width, bias=False) for _ in range(2))
        self.place = nn.Parameter(torch.empty(how.stride, width))
        self.norm = Norm(dim)

    def forward(self, x: Float[Tensor, "batch time width"], rotary: Rotation) -> Float[Tensor, "batch 1 entry dim"]:
        """The entries of hidden states, of which the first begins one."""
        stride = self.how.stride
        keys, gates = blocks_of(self.to_key(x), stride), blocks_of(self.to_gate(x), stride) + self.place
        if self.how.overlap:
            keys, gates = overlapping(keys, gates)
        pooled = self.norm((gates.softmax(2, dtype=torch.float32).to(keys.dtype) * keys).sum(2))
        return rotary.every(stride)(pooled[:, None], self.how.rotary_dim)

    def all(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, site: int
    ) -> Float[Tensor, "batch 1 entry dim"]:
        """The entries of all tokens so far, of which a pass that goes on makes those that are new."""
        if how.cache is None:
            return self(x, rotary)
        end = how.offset + x.shape[1]
        states = how.cache.recent("compressed", site, x, self.open_at(end))
        again = states.shape[1] - x.shape[1]
        found = self(states, rotary.part(how.offset - again, end))
        return how.cache.extend("entry", site, found[:, :, again // self.how.stride :], 2)

    def open_at(self, position: int) -> int:
        """How many tokens before this one the next entry is made of as well."""
        return min(position % self.how.stride + self.how.overlap * self.how.stride, position)


class CompressedAttention(nn.Module):
    """Multi-head attention whose one key/value head is read as entries, chosen among all before a query, beside the
    window's raw tokens and a learned sink  (transformers' DeepseekV4Attention).

    Keys are values too. What the rotary embedding turned of them is turned back in the output by the query's
    position, so that a value too depends on the distance alone. Queries come from the hidden states and the output is
    one linear map, where the published layer has a low-rank latent before and grouped maps behind.

    Args:
        site: number of this layer.
        d_model: width of the hidden states.
        heads: attention heads; each has d_model / heads dims.
        how: see Compression.
    """

    def __init__(self, site: int, d_model: int, heads: int, how: Compression) -> None:
        super().__init__()
        dim = d_model // heads
        if how.rotary_dim is not None and how.rotary_dim > dim:
            raise ValueError(
                f"model.kv_rotary_dim = {how.rotary_dim}: more than model.d_model / model.heads = {dim}; give null "
                "for all of a head's dims, or fewer."
            )
        self.site = Site(site, d_model, heads, 1, dim, stride=how.stride, window=how.window)
        self.how = how
        self.to_query = nn.Linear(d_model, d_model, bias=False)
        self.to_kv, self.kv_norm = nn.Linear(d_model, dim, bias=False), Norm(dim)
        self.compressor = Compressor(d_model, dim, how)
        self.sink = nn.Parameter(torch.empty(heads)) if how.sink else None
        self.to_out = nn.Linear(d_model, d_model, bias=False)

    def tabulate(self, rotary: Rotation) -> None:
        """Make the tables of the rotation that a layer asks for."""
        dim = self.site.dim if self.how.rotary_dim is None else self.how.rotary_dim
        for each in (rotary, rotary.every(self.how.stride)):
            each.table(dim)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, router: Router | None
    ) -> tuple[Float[Tensor, "batch time width"], Losses]:
        """Attention output, and the router's losses where the pass teaches."""
        q = F.rms_norm(
            rearrange(self.to_query(x), "b t (h d) -> b h t d", h=self.site.heads), (self.site.dim,), eps=EPS
        )
        near = rotary(self.kv_norm(self.to_kv(x))[:, None], self.how.rotary_dim)
        if how.cache is not None:
            near = how.cache.recent("near", self.site.index, near[:, 0], self.how.window - 1)[:, None]
        entries = Entries(
            near, self.compressor.all(x, rotary, how, self.site.index), how.offset, x.shape[1], self.how.stride,
            self.how.window, self.sink, "auto" if router is None else router.backend,
        )  # fmt: skip
        out, losses = attend_entries(self.site, router, x, rotary(q, self.how.rotary_dim), entries, rotary, how)
        out = rotary(out, self.how.rotary_dim, back=True)
        return self.to_out(rearrange(out, "b h t d -> b t (h d)")), losses


def attend_entries(
    site: Site, router: Router | None, x: Float[Tensor, "batch time width"], q: Float[Tensor, "batch head time dim"],
    entries: Entries, rotary: Rotation, how: Pass,
) -> tuple[Float[Tensor, "batch head time dim"], Losses]:  # fmt: skip
    """What `dsa.backbones.attention.attend` is to tokens: attention as the pass wants it, and the router's losses."""
    sparse, inputs = how.sparse and router is not None, SiteInputs(site, x, q, entries.spread, rotary, entries.sink)
    if how.watch is not None or not sparse:
        with named("attend", q.device):
            out, dense = entries.attend(q, None)
    if how.watch is not None:
        how.watch(inputs._replace(logsumexp=dense))
    if how.sparse and router is not None:
        return attend_routed(router, inputs, entries.spread, how, entries)
    if how.after is not None:
        how.after(Attended(site, entries.spread, out))
    return out, {}


def misfit(stride: int, indexer: Indexer | None, pattern: Pattern) -> str | None:
    """Why a composition cannot choose among entries of so many tokens; None if it can."""
    if stride == 1:
        return None
    if indexer is not None and indexer.unit != stride:
        return (
            f"indexer.unit = {indexer.unit}: with model.kv=csa keys are entries of model.kv_stride = {stride} tokens; "
            "give an indexer that chooses blocks of as many, as indexer=deepseek_v4_csa does, or model.kv=token"
        )
    if any(one.zones() != EARLIER for one in pattern.library):
        return (
            "pattern: with model.kv=csa every query chooses among all entries before it, beside a window of its own; "
            "give pattern=causal, or model.kv=token"
        )
    return None
