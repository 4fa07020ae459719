"""Attention as Hugging Face transformers computes it for DeepSeek-V3.2: index scores, top-k, mask, dense attention."""

from types import SimpleNamespace
from typing import Any

import torch

from dsa.bench.measure import Work

HOW_TO_GET = "--peers needs transformers 5.23 or later: pip install 'transformers>=5.23'"


def works(length: int, k: int, index: tuple[int, int], heads: int, dim: int, batch: int) -> dict[str, Work]:
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
    width, rotary = heads * dim, index[1] // 2
    config: Any = SimpleNamespace(
        hidden_size=width, q_lora_rank=width, index_n_heads=index[0], index_head_dim=index[1], index_topk=k,
        qk_rope_head_dim=rotary,
    )  # fmt: skip
    indexer = deepseek.DeepseekV32Indexer(config, 0)
    hidden = torch.randn(batch, length, width)
    angles = torch.outer(torch.arange(length).float(), torch.rand(rotary))[None]
    rotation = (angles.cos(), angles.sin())
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    causal = torch.zeros(1, length, length).masked_fill(future, float("-inf"))
    module: Any = SimpleNamespace(num_key_value_groups=1, training=False)
    q, key, v = (torch.randn(batch, heads, length, dim, requires_grad=True) for _ in range(3))
    grad = torch.randn(batch, length, heads, dim)

    def attend() -> Any:
        chosen = indexer(hidden, hidden, rotation, causal, torch.arange(length)[None]).long()
        mask = torch.full((batch, length, length), float("-inf")).scatter(-1, chosen, 0.0) + causal
        return deepseek.eager_attention_forward(module, q, key, v, mask[:, None], dim**-0.5)[0]

    def forward() -> Any:
        with torch.no_grad():
            return [attend()]

    def train() -> Any:
        out = attend()
        return [out, *torch.autograd.grad(out, (q, key, v), grad)]

    return {"transformers/forward": forward, "transformers/train": train}
