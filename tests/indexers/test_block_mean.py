"""Blocks by their mean key: the scores of transformers' QSA, nothing of a block before it is whole, and caches."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose, ops
from dsa.backbones import Cache, Pass
from dsa.indexers import BlockMeanIndexer
from dsa.ops import Rotation, Zone

EVERYTHING = (Zone(first=None, last=0),)
SHAPES = [  # rows, length, width, heads, dims, rotated dims, tokens of a block, keys a query keeps of whole blocks
    (2, 50, 32, 2, 16, 8, 4, 12),
    (1, 97, 48, 4, 32, 32, 8, 24),
    (2, 40, 24, 1, 8, 4, 2, 6),
    (1, 61, 16, 3, 12, 6, 5, 10),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_it_keeps_the_keys_that_transformers_keeps(shape):
    pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
    from transformers.models.qwen4_exp import configuration_qwen4_exp as settings
    from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen

    rows, length, width, heads, dim, rotated, unit, budget = shape
    config = settings.Qwen4ExpTextConfig(
        hidden_size=width, head_dim=rotated, indexer_n_heads=heads, indexer_kv_heads=1, indexer_head_dim=dim,
        indexer_budget=budget, indexer_compress_ratio=unit,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = qwen.Qwen4ExpTextQSAIndexer(config, 0)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(rows, length, width)
    positions = torch.arange(length).expand(rows, -1)
    causal = torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, -1, -1)
    with torch.no_grad():
        expected = theirs(x, qwen.Qwen4ExpTextRotaryEmbedding(config)(x, positions), causal, None)[:, 0]
    own = BlockMeanIndexer(width, heads, dim, unit, rotary_dim=rotated)
    with torch.no_grad():
        query, key = theirs.index_qk_proj.weight.split([heads * dim, dim])
        own.to_query.weight.copy_(query)
        own.to_key.weight.copy_(key)
        own.query_norm.weight.copy_(1 + theirs.q_layernorm.weight)  # theirs is written as a difference to 1
        own.key_norm.weight.copy_(1 + theirs.k_layernorm.weight)
        features = own(x, Rotation(length, 10000.0))
    tail = (torch.arange(length) + 1) % unit  # theirs keeps the open block beside its budget, ours within it
    limit = (budget + tail).expand(rows, 1, -1)
    selection = ops.select(features, EVERYTHING, limit, backend="reference")
    for row in range(rows):
        for t in range(length):
            kept = [p for p in selection.positions[row, 0, t].tolist() if p >= 0]
            scores = features.scores(slice(t, t + 1), slice(0, (t + 1) // unit))[row, 0, 0]
            if len(scores) > budget // unit and (scores > 0).sum() < budget // unit:
                continue  # whole blocks that tie at 0: theirs takes any of them
            assert kept == expected[row, t, : t + 1].nonzero().flatten().tolist(), (row, t)


def test_a_block_is_not_seen_before_it_is_whole():
    """The future changes in the middle of a block of 8."""
    model = build_model(compose([*SMALL, "indexer=block_mean", "pattern=causal", "selector.k=24"]), 64).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=draw))
        tokens = torch.randint(64, (2, 64), generator=draw)
        for change in (36, 37, 39):
            other = tokens.clone()
            other[:, change:] = (tokens[:, change:] + 1) % 64
            one, two = model(tokens), model(other)
            assert torch.equal(one[:, :change], two[:, :change])
            assert not torch.equal(one[:, change:], two[:, change:])


def test_a_pass_goes_on_where_a_block_begins_and_nowhere_else():
    model = build_model(compose([*SMALL, "indexer=block_mean", "pattern=causal", "selector.k=24"]), 64).eval()
    tokens, how = torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0)), Pass(cache=Cache())
    with torch.no_grad():
        parts = torch.cat([model.run(part, how).logits for part in tokens.tensor_split([16, 40], 1)], 1)
        torch.testing.assert_close(parts, model(tokens), atol=1e-5, rtol=0)
        how = Pass(cache=Cache())
        model.run(tokens[:, :20], how)
        with pytest.raises(NotImplementedError, match="position 20 is within a block of 8 tokens"):
            model.run(tokens[:, 20:], how)


@pytest.mark.parametrize("unit", [1, 0, 2.5, True])
@pytest.mark.usefixtures("untyped")
def test_a_block_has_two_tokens_or_more(unit):
    with pytest.raises(ValueError, match=r"indexer\.unit = .*: give a whole number from 2"):
        BlockMeanIndexer(32, 2, 8, unit)
