"""A plain pre-norm transformer whose attention is sparse."""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dsa.checks import above, at_least, even, positive
from dsa.indexers import Indexer
from dsa.model.attention import Pass, SparseAttention
from dsa.ops import Rotation
from dsa.patterns import Pattern
from dsa.precision import Precision
from dsa.selectors import Selector


class CausalConv(nn.Module):
    """Depthwise convolution over the last `width` tokens: lets attention see which token preceded a key."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model, 1, width))

    def forward(self, x: Float[Tensor, "batch time model"]) -> Float[Tensor, "batch time model"]:
        width = self.weight.shape[-1]
        return F.conv1d(F.pad(x.mT, (width - 1, 0)), self.weight.to(x.dtype), groups=len(self.weight)).mT


class Block(nn.Module):
    """Attention, then a GELU feed-forward layer, each on normed inputs and added to the stream."""

    def __init__(self, d_model: int, ff: int, conv: int, attention: SparseAttention) -> None:
        super().__init__()
        self.attention_norm, self.ff_norm = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.conv = CausalConv(d_model, conv) if conv else None
        self.attention = attention
        self.to_hidden = nn.Linear(d_model, ff, bias=False)
        self.from_hidden = nn.Linear(ff, d_model, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time model"], rotary: Rotation, how: Pass
    ) -> tuple[Float[Tensor, "batch time model"], Float[Tensor, ""]]:
        y = self.attention_norm(x)
        if self.conv is not None:
            y = y + self.conv(y)
        attended, loss = self.attention(y, rotary, how)
        x = x + attended
        return x + self.from_hidden(F.gelu(self.to_hidden(self.ff_norm(x)))), loss


class SparseTransformer(nn.Module):
    """Language model with sparse attention: `model(tokens[batch, time]) -> logits[batch, time, vocab]`.

    Args:
        vocab_size: number of tokens.
        d_model: width of the hidden states.
        layers: number of blocks.
        heads: attention heads; d_model / heads must be even, for the rotary embedding.
        ff: width of the feed-forward layers.
        conv: width of the causal convolution before attention; 0 = none.
        rope_base: wavelength base of the rotary embedding.
        checkpointing: recompute each block in the backward pass instead of keeping its activations.
        pattern, precision: shared by the layers.
        selector, indexer: called once per layer; indexer None for dense attention and controls.
        backend: which ops backend serves.
        seed: of the initial weights, each drawn from (seed, its name) alone, so that the backbone is the same
            whatever the indexer.
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
        checkpointing: bool,
        pattern: Pattern,
        precision: Precision,
        selector: Callable[[], Selector],
        indexer: Callable[[], Indexer] | None,
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("d_model", d_model), ("layers", layers), ("heads", heads), ("ff", ff)):
            positive(value, f"model.{name}")
        if d_model % heads:
            raise ValueError(f"model.heads = {heads}: must divide model.d_model = {d_model}.")
        at_least(conv, 0, "model.conv")
        above(rope_base, 1, "model.rope_base")
        even(d_model // heads, "model.d_model / model.heads", "the rotary embedding turns pairs of dimensions")
        self.vocab_size, self.rope_base, self.checkpointing = vocab_size, rope_base, checkpointing
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList()
        for layer in range(layers):
            attention = SparseAttention(
                d_model,
                heads,
                None if indexer is None else indexer(),
                pattern,
                selector(),
                precision,
                layer,
                backend,
            )
            self.blocks.append(Block(d_model, ff, conv, attention))
        self.norm = nn.RMSNorm(d_model)
        self.to_logits = nn.Linear(d_model, vocab_size, bias=False)
        self.initialise(seed)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        return self.run(tokens, Pass())[0]

    def run(
        self, tokens: Int[Tensor, "batch time"], how: Pass
    ) -> tuple[Float[Tensor, "batch time vocab"], Float[Tensor, ""]]:
        """Logits, and the indexers' loss averaged over layers (0 unless the pass teaches)."""
        rotary = Rotation(tokens.shape[1], self.rope_base, tokens.device)
        x = self.embedding(tokens)
        losses = []
        for block in self.blocks:
            if self.checkpointing and self.training:
                x, loss = checkpoint(block, x, rotary, how, use_reentrant=False)
            else:
                x, loss = block(x, rotary, how)
            losses.append(loss)
        return self.to_logits(self.norm(x)), torch.stack(losses).mean()

    def attentions(self) -> list[SparseAttention]:
        """The attention layer of each block."""
        return [m for m in self.modules() if isinstance(m, SparseAttention)]

    def indexer_parameters(self) -> list[nn.Parameter]:
        """Every parameter that the indexers' loss trains."""
        return [p for a in self.attentions() if a.indexer is not None for p in a.indexer.parameters()]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Every parameter that the language-model loss trains."""
        indexers = {id(p) for p in self.indexer_parameters()}
        return [p for p in self.parameters() if id(p) not in indexers]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Norms 1; embedding and indexers normal with standard deviation 0.02; all else with (3 fan-in)^-1/2.

        The recall tasks do not train from 0.02 everywhere. Each weight is drawn from (seed, name) alone.
        """
        if self.embedding.weight.is_meta:  # only the sizes are asked for
            return
        norms = {id(p) for m in self.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm) for p in m.parameters()}
        for name, parameter in self.named_parameters():
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            if id(parameter) in norms:
                parameter.fill_(float(name.endswith("weight")))
            else:
                small = ".indexer." in name or name.startswith("embedding")
                std = 0.02 if small else (3 * parameter[0].numel()) ** -0.5
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
