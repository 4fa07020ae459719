"""Compressed sparse attention gives the numbers of transformers' DeepSeek-V4, with its weights."""

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from transformers.models.deepseek_v4 import configuration_deepseek_v4 as settings
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as deepseek

from dsa.backbones import Cache, Pass, Router
from dsa.backbones.compressed import CompressedAttention, Compression
from dsa.indexers import OverlappingPoolIndexer
from dsa.ops import Rotation
from dsa.patterns.causal import Causal
from dsa.precision import Exact
from dsa.selectors import TopK

INDEX_HEADS = 24  # so many that no score is clipped to zero by all of them, where ours and theirs break ties apart
SHAPES = [  # rows, length, width, heads, dims of a head that are rotated, tokens of an entry, window, entries kept
    (2, 50, 32, 4, 8, 4, 8, 3),
    (1, 97, 48, 3, 16, 8, 13, 4),
    (2, 41, 24, 2, 4, 2, 5, 6),
    (1, 61, 36, 6, 6, 5, 5, 2),
    (1, 127, 32, 2, 2, 4, 128, 9),
    (2, 3, 32, 4, 8, 4, 8, 3),
]


def theirs_of(shape):
    """Their layer with random weights; queries from the hidden states themselves, where it has a latent between."""
    _, _, width, heads, rotated, stride, window, kept = shape
    dim = width // heads
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": rotated / dim}
    config = settings.DeepseekV4Config(
        hidden_size=width, head_dim=dim, num_attention_heads=heads, q_lora_rank=width, index_n_heads=INDEX_HEADS,
        index_head_dim=dim, index_topk=kept, sliding_window=window, o_groups=1, o_lora_rank=4, num_hidden_layers=1,
        layer_types=["compressed_sparse_attention"],
        compress_rates={"compressed_sparse_attention": stride, "heavily_compressed_attention": 2 * stride},
    )  # fmt: skip
    config.rope_parameters = {"main": rope, "compress": rope}
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    layer = deepseek.DeepseekV4Attention(config, 0)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    layer.q_a_proj, layer.q_a_norm = torch.nn.Identity(), torch.nn.Identity()
    return layer, deepseek.DeepseekV4RotaryEmbedding(config)


def ours_of(theirs, shape):
    """The same layer and its router; theirs turns the last dims, neighbours against each other."""
    _, _, width, heads, rotated, stride, window, kept = shape
    dim = width // heads
    last = torch.arange(dim - rotated, dim)
    order = torch.cat([last[0::2], last[1::2], torch.arange(dim - rotated)])
    both = torch.cat([order, dim + order])
    layer = CompressedAttention(0, width, heads, Compression(stride, window, rotated, True, True))
    indexer = OverlappingPoolIndexer(width, INDEX_HEADS, dim, stride, rotary_dim=rotated)
    own, index = theirs.compressor, theirs.compressor.indexer
    with torch.no_grad():
        layer.to_query.weight.copy_(theirs.q_b_proj.weight.unflatten(0, (heads, dim))[:, order].flatten(0, 1))
        layer.to_kv.weight.copy_(theirs.kv_proj.weight[order])
        layer.kv_norm.weight.copy_(theirs.kv_norm.weight[order])
        layer.sink.copy_(theirs.sinks)
        layer.to_out.weight.copy_(torch.eye(width))
        indexer.to_query.weight.copy_(index.q_b_proj.weight.unflatten(0, (INDEX_HEADS, dim))[:, order].flatten(0, 1))
        indexer.to_weight.weight.copy_(index.scorer.weights_proj.weight)
        for to, key_norm, of in ((layer.compressor, layer.compressor.norm, own), (indexer, indexer.key_norm, index)):
            to.to_key.weight.copy_(of.kv_proj.weight[both])
            to.to_gate.weight.copy_(of.gate_proj.weight[both])
            to.place.copy_(of.position_bias[:, both])
            key_norm.weight.copy_(of.kv_norm.weight[order])
    return layer, Router(indexer, Causal(kept * stride), TopK(kept * stride), Exact(), 0), order


def near_mask(rows, length, window):
    """Theirs, of the raw tokens."""
    distance = torch.arange(length)[:, None] - torch.arange(length)
    return (
        torch.zeros(length, length)
        .masked_fill((distance < 0) | (distance >= window), -torch.inf)
        .expand(rows, 1, -1, -1)
    )


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_entries_and_attention_over_chosen_ones_are_those_of_deepseek_v4(shape):
    rows, length, width, heads, *_, window, _ = shape
    theirs, rope = theirs_of(shape)
    x, positions = torch.randn(rows, length, width), torch.arange(length).expand(rows, -1)
    turns = {"compress": rope(x, positions, layer_type="compress")}
    wanted = []
    theirs.o_a_proj.register_forward_pre_hook(lambda _, given: wanted.append(given[0]))
    theirs(x, turns, positions, near_mask(rows, length, window))
    entries, _ = theirs.compressor(x, x, positions, None, 0)

    layer, router, order = ours_of(theirs, shape)
    rotary = Rotation(length, 10000.0)
    torch.testing.assert_close(layer.compressor(x, rotary), entries[..., order], atol=1e-4, rtol=1e-4)
    got, _ = layer(x, rotary, Pass(), router)
    expected = wanted[0].view(rows, length, heads, -1)[..., order].flatten(2)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)

    cache, parts = Cache(), []
    for part in x.tensor_split(sorted({1, length // 3, length // 3 + 1, length - 1}), 1):
        turn = Rotation(part.shape[1], 10000.0, offset=cache.length)
        parts.append(layer(part, turn, Pass(cache=cache), router)[0])
        cache.length += part.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_entries_of_their_own_tokens_alone_are_those_of_the_heavily_compressed_attention():
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    config = settings.DeepseekV4Config(
        hidden_size=32, head_dim=8, compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 6}
    )
    config.rope_parameters = {"main": rope, "compress": rope}
    torch.manual_seed(0)
    theirs = deepseek.DeepseekV4HCACompressor(config)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    order = torch.cat([torch.arange(0, 8, 2), torch.arange(1, 8, 2)])
    layer = CompressedAttention(0, 32, 4, Compression(6, 8, None, False, False))
    own = layer.compressor
    own.to_key.weight.copy_(theirs.kv_proj.weight[order])
    own.to_gate.weight.copy_(theirs.gate_proj.weight[order])
    own.place.copy_(theirs.position_bias[:, order])
    own.norm.weight.copy_(theirs.kv_norm.weight[order])
    x = torch.randn(2, 45, 32)
    wanted, _ = theirs(x, x, torch.arange(45).expand(2, -1), None, 0)
    torch.testing.assert_close(own(x, Rotation(45, 10000.0)), wanted[..., order], atol=1e-5, rtol=1e-4)


def test_the_settings_are_the_published_ones():
    from dsa import compose

    config, node = settings.DeepseekV4Config(), compose([]).model.node
    assert node["kv_stride"] == config.compress_rates["compressed_sparse_attention"]
    assert node["kv_window"] == config.sliding_window
