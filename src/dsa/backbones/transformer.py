"""A plain pre-norm transformer whose attention is sparse."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dsa.backbones.attention import Losses, SparseAttention, mean_losses
from dsa.backbones.backbone import Backbone
from dsa.backbones.compressed import CompressedAttention, Compression
from dsa.backbones.contracts import Output, Pass
from dsa.backbones.initial import draw
from dsa.backbones.router import Router
from dsa.backbones.vocabulary import check_tokens
from dsa.checks import above, at_least, even, one_of, positive
from dsa.ops import Rotation

KV = ("kv", *(f"kv_{field.name}" for field in fields(Compression)))
"""Settings of what attention reads."""


class CausalConv(nn.Module):
    """Depthwise convolution over the last `width` tokens: lets attention see which token preceded a key."""

    def __init__(self, site: int, d_model: int, width: int) -> None:
        super().__init__()
        self.site = site
        self.weight = nn.Parameter(torch.empty(d_model, 1, width))

    def forward(self, x: Float[Tensor, "batch time width"], how: Pass) -> Float[Tensor, "batch time width"]:
        reach = self.weight.shape[-1] - 1
        known = x if how.cache is None else how.cache.recent("conv", self.site, x, reach)
        wide = F.pad(known.mT, (reach + x.shape[1] - known.shape[1], 0))
        return F.conv1d(wide, self.weight.to(x.dtype), groups=len(self.weight)).mT


class Block(nn.Module):
    """Attention, then a GELU feed-forward layer, each on normed inputs and added to the stream."""

    def __init__(
        self, site: int, d_model: int, heads: int, ff: int, conv: int, compression: Compression | None
    ) -> None:
        super().__init__()
        self.attention_norm, self.ff_norm = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.conv = CausalConv(site, d_model, conv) if conv else None
        self.attention = (
            SparseAttention(site, d_model, heads)
            if compression is None
            else CompressedAttention(site, d_model, heads, compression)
        )
        self.to_hidden = nn.Linear(d_model, ff, bias=False)
        self.from_hidden = nn.Linear(ff, d_model, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time width"], rotary: Rotation, how: Pass, router: Router | None
    ) -> tuple[Float[Tensor, "batch time width"], Losses]:
        y = self.attention_norm(x)
        if self.conv is not None:
            y = y + self.conv(y, how)
        attended, losses = self.attention(y, rotary, how, router)
        x = x + attended
        return x + self.from_hidden(F.gelu(self.to_hidden(self.ff_norm(x)))), losses


class SparseTransformer(Backbone):
    """Pre-norm transformer with rotary positions and a causal convolution before attention.

    Args:
        vocab_size: number of tokens.
        d_model: width of the hidden states.
        layers: number of blocks.
        heads: attention heads; d_model / heads must be even, for the rotary embedding.
        ff: width of the feed-forward layers.
        conv: width of the causal convolution before attention; 0 = none.
        rope_base: wavelength base of the rotary embedding.
        seed: of the initial weights, each drawn from (seed, its name) alone.
        kv: what attention reads: token, the keys and values of every token; csa, one compressed entry for a few tokens
            and the nearest tokens raw, by one key/value head (DeepSeek-V4's compressed sparse attention).
        kv_stride, kv_window, kv_rotary_dim, kv_overlap, kv_sink: of csa, see Compression.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        layers: int,
        heads: int,
        ff: int,
        conv: int,
        rope_base: float,
        seed: int = 0,
        kv: str = "token",
        kv_stride: int = 4,
        kv_window: int = 128,
        kv_rotary_dim: int | None = 8,
        kv_overlap: bool = True,
        kv_sink: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("d_model", d_model), ("layers", layers), ("heads", heads), ("ff", ff)):
            positive(value, f"model.{name}")
        if d_model % heads:
            raise ValueError(f"model.heads = {heads}: must divide model.d_model = {d_model}.")
        at_least(conv, 0, "model.conv")
        above(rope_base, 1, "model.rope_base")
        even(d_model // heads, "model.d_model / model.heads", "the rotary embedding turns pairs of dimensions")
        asked = Compression(kv_stride, kv_window, kv_rotary_dim, kv_overlap, kv_sink)
        compression = asked if one_of(kv, ("token", "csa"), "model.kv") == "csa" else None
        self.vocab_size, self.rope_base = vocab_size, rope_base
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(Block(site, d_model, heads, ff, conv, compression) for site in range(layers))
        self.norm = nn.RMSNorm(d_model)
        self.to_logits = nn.Linear(d_model, vocab_size, bias=False)
        self.sites = tuple(block.attention.site for block in self.attention_blocks())
        self.initialise(seed)

    @classmethod
    def identity(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """Attention that reads tokens goes unsaid, and what only others ask."""
        return {name: value for name, value in node.items() if node.get("kv") == "csa" or name not in KV}

    @property
    def recomputes(self) -> bool:
        return True

    @property
    def chunks(self) -> bool:
        return True

    @property
    def layer_list(self) -> list[nn.Module]:
        return list(self.blocks)

    def attention_blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def run(self, tokens: Int[Tensor, "batch time"], how: Pass) -> Output:
        check_tokens(tokens, self.vocab_size)
        how = how.begun()
        rotary = Rotation(tokens.shape[1], self.rope_base, tokens.device, offset=how.offset)
        if how.cache is None:  # a layer that is compiled and recomputed has to find the same twice
            self.attention_blocks()[0].attention.tabulate(rotary)
        x = self.embedding(tokens)
        losses: list[Losses] = []
        for site, block in enumerate(self.blocks):
            if self.memory.checkpoint and self.training:
                x, own = checkpoint(block, x, rotary, how, self.router(site), use_reentrant=False)
            else:
                x, own = block(x, rotary, how, self.router(site))
            losses.append(own)
        if how.cache is not None:
            how.cache.length += tokens.shape[1]
        return self.answered(lambda x: self.to_logits(self.norm(x)), x, how, mean_losses(losses))

    def initialise(self, seed: int) -> None:
        """Norms 1; the embedding normal with standard deviation 0.02; sinks and places in an entry 0; all else with
        (3 fan-in)^-1/2.

        The recall tasks do not train from 0.02 everywhere.
        """

        def deviation(name: str, weight: Tensor) -> float:
            if name.endswith((".sink", ".place")):
                return 0.0
            return 0.02 if name == "embedding.weight" else (3 * weight[0].numel()) ** -0.5

        draw(self, seed, "", deviation)
