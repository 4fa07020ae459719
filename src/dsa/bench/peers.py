"""Others' attention over chosen keys: DeepSeek-V3.2's of Hugging Face transformers, and torch's FlexAttention."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from dsa import ops
from dsa.bench.layer import Layer
from dsa.bench.measure import Work
from dsa.ops import Selection, Zone

HOW_TO_GET = "--peers needs transformers 5.23 or later: pip install 'transformers>=5.23'"
ROOM = 1 << 36
"""Bytes of numbers for all pairs of queries and keys; a peer that holds more is left out at that length."""


def works(length: int, layer: Layer) -> dict[str, Work]:
    """What is timed of them, under "peer/direction", at lengths where their pairs of queries and keys have room."""
    pairs = layer.batch * length**2
    found: dict[str, Work] = {}
    if pairs * (layer.heads * 3 * layer.dtype.itemsize + 8) <= ROOM:  # logits, probabilities, gradient; the mask
        found |= transformers_works(length, layer)
    if pairs <= ROOM:
        found |= flex_works(length, layer)
    return found


def transformers_works(length: int, layer: Layer) -> dict[str, Work]:
    """transformers' indexer and its eager attention under the mask of the indexer's keys.

    Its indexer's projections are included (small at these sizes); it has no indexer loss.

    Raises:
        SystemExit: transformers is not installed.
    """
    try:
        from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
    except ImportError as error:
        raise SystemExit(HOW_TO_GET) from error
    torch.manual_seed(0)
    width, rotary = layer.heads * layer.dim, layer.index[1] // 2
    kind: Any = {"device": layer.device, "dtype": layer.dtype}
    config: Any = SimpleNamespace(
        hidden_size=width, q_lora_rank=width, index_n_heads=layer.index[0], index_head_dim=layer.index[1],
        index_topk=layer.k, qk_rope_head_dim=rotary,
    )  # fmt: skip
    indexer = deepseek.DeepseekV32Indexer(config, 0).to(**kind)
    hidden = torch.randn(layer.batch, length, width, **kind)
    angles = torch.outer(torch.arange(length).float(), torch.rand(rotary))[None]
    rotation = angles.cos().to(**kind), angles.sin().to(**kind)
    future = torch.ones(length, length, dtype=torch.bool, device=layer.device).triu(1)
    causal = torch.zeros(1, length, length, **kind).masked_fill(future, float("-inf"))
    positions = torch.arange(length, device=layer.device)[None]
    module: Any = SimpleNamespace(num_key_value_groups=layer.heads // layer.kv_heads, training=False)
    q, key, v, grad = layer.projections(length)
    grad = grad.transpose(1, 2)

    def attend() -> Tensor:
        chosen = indexer(hidden, hidden, rotation, causal, positions).long()
        mask = torch.full((layer.batch, length, length), float("-inf"), **kind).scatter(-1, chosen, 0.0) + causal
        out: Tensor = deepseek.eager_attention_forward(module, q, key, v, mask[:, None], layer.dim**-0.5)[0]
        return out

    def forward() -> Any:
        with torch.no_grad():
            return [attend()]

    def train() -> Any:
        out = attend()
        return [out, *torch.autograd.grad(out, (q, key, v), grad)]

    return {"transformers/forward": forward, "transformers/train": train}


def flex_works(length: int, layer: Layer) -> dict[str, Work]:
    """FlexAttention over the selection that the index features make, its mask there already: compare it with attend.

    It skips blocks of 128 queries and keys in which nothing is chosen, and no others. Compiled on a CUDA device; on the
    CPU it has no gradient, and is computed without a compiler.
    """
    q, k, v, grad = layer.projections(length)
    limit = layer.limit(length)
    selection = ops.select(layer.features(length), (Zone(first=None),), limit, backend=layer.backend)
    mask = block_mask(selection, length)
    attention: Any = torch.compile(flex_attention) if q.is_cuda else flex_attention
    given = [x.detach() for x in (q, k, v)]  # the CPU's takes none that could have a gradient

    def forward() -> Any:
        return [attention(*given, block_mask=mask, enable_gqa=layer.heads != layer.kv_heads)]

    def train() -> Any:
        out = attention(q, k, v, block_mask=mask, enable_gqa=layer.heads != layer.kv_heads)
        return [out, *torch.autograd.grad(out, (q, k, v), grad)]

    return {"flex/forward": forward} | ({"flex/train": train} if q.is_cuda else {})


def block_mask(selection: Selection, keys: int) -> Any:
    """A selection that all heads share, as FlexAttention takes it."""
    positions = selection.positions[:, 0].long()
    chosen = torch.zeros(*positions.shape[:2], keys + 1, dtype=torch.bool, device=positions.device)
    chosen.scatter_(-1, positions.where(positions >= 0, keys), value=True)

    def kept(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return chosen[batch, query, key]

    return create_block_mask(kept, len(positions), None, positions.shape[1], keys, device=positions.device)
