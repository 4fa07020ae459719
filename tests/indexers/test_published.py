"""Indexers of published models give the scores of transformers' own code from the same weights."""

import random

import pytest
import torch
from indexers.ranking import EVERYTHING, Ranked, tied

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from transformers import DeepseekV32Config, GlmMoeDsaConfig
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek
from transformers.models.glm_moe_dsa import modeling_glm_moe_dsa as glm

from dsa import compose, ops
from dsa.indexers import LightningIndexer
from dsa.ops import Rotation

MODELS = {
    "deepseek_v32": (DeepseekV32Config, deepseek.DeepseekV32Indexer, deepseek.DeepseekV32RotaryEmbedding),
    "glm5": (GlmMoeDsaConfig, glm.GlmMoeDsaIndexer, glm.GlmMoeDsaRotaryEmbedding),
}


def random_shape(seed):
    """What SHAPES holds, drawn: a query keeps far fewer keys than there are."""
    draw = random.Random(seed)
    dim = 2 * draw.randint(2, 32)
    length, k = draw.randint(50, 150), draw.randint(3, 12)
    return (
        draw.randint(1, 3),
        length,
        4 * draw.randint(6, 16),
        draw.randint(3, 12),
        dim,
        2 * draw.randint(1, dim // 2),
        k,
    )


SHAPES = [  # rows, length, width, heads, dims, rotated dims, keys a query keeps
    (2, 96, 32, 4, 16, 8, 7),
    (1, 200, 48, 8, 32, 16, 12),
    (3, 65, 24, 3, 12, 12, 5),
    (1, 130, 64, 16, 64, 2, 9),
    *(random_shape(seed) for seed in range(2)),
]


RANK = 20  # of the latent; no width of SHAPES


def theirs(name, shape, seed=0, theta=10000.0, pads=0, rank=None):
    """Scores and chosen keys of transformers' indexer with random weights, and what it read.

    Args:
        pads: tokens of padding before each row's first.
        rank: of the latent of the queries; None: their latent is the hidden states.
    """
    rows, length, width, heads, dim, rotated, k = shape
    config_of, indexer_of, rotary_of = MODELS[name]
    config = config_of(
        hidden_size=width, q_lora_rank=rank or width, index_n_heads=heads, index_head_dim=dim, qk_rope_head_dim=rotated,
        index_topk=k, rope_parameters={"rope_type": "default", "rope_theta": theta},
    )  # fmt: skip
    torch.manual_seed(seed)
    indexer = indexer_of(config, 0)
    for weight in indexer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    x = torch.randn(rows, length, width)
    latent = x if rank is None else torch.randn(rows, length, rank)
    positions = torch.arange(length).expand(rows, -1) - torch.as_tensor(pads).view(-1, 1)
    mask = torch.full((length, length), -torch.inf).triu(1).expand(rows, -1, -1)
    mask = mask.masked_fill((positions < 0)[:, None], -torch.inf)
    positions = positions.clamp(min=0)
    with Ranked() as ranked:
        chosen = indexer(x, latent, rotary_of(config)(x, positions), mask, positions)
    return indexer, (x, latent), ranked.scores[0], chosen.long()


def ours(name, indexer, shape, rank=None):
    """Our indexer with their weights."""
    _, _, width, heads, dim, rotated, _ = shape
    own = LightningIndexer(width, heads, dim, rotary_dim=rotated, latent=rank is not None, latent_width=rank or 0)
    order = torch.arange(dim)
    if name == "glm5":  # pairs of neighbours become pairs across halves
        order = torch.cat([order[0:rotated:2], order[1:rotated:2], order[rotated:]])
    with torch.no_grad():
        own.to_query.weight.copy_(indexer.wq_b.weight.unflatten(0, (heads, dim))[:, order].flatten(0, 1))
        own.to_key.weight.copy_(indexer.wk.weight[order])
        own.key_norm.weight.copy_(indexer.k_norm.weight[order])
        own.key_norm.bias.copy_(indexer.k_norm.bias[order])
        own.to_weight.weight.copy_(indexer.weights_proj.weight)
    return own


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("theta", "padded"), [(10000.0, 0), (500.0, 0), (10000.0, 11)])
@pytest.mark.parametrize("rank", [None, RANK], ids=["hidden", "latent"])
def test_scores_and_selected_keys_are_those_of_transformers(name, shape, theta, padded, rank):
    rows, length, *_, k = shape
    pads = padded * (torch.arange(rows) + 1)
    indexer, (x, latent), expected, chosen = theirs(name, shape, theta=theta, pads=pads, rank=rank)
    with torch.no_grad():
        features = ours(name, indexer, shape, rank)(x, Rotation(length, theta), latent=latent)
    later = torch.ones(length, length, dtype=torch.bool).triu(1) | (torch.arange(length) < pads[:, None])[:, None]
    scores = features.scores(slice(0, length), slice(0, length))[:, 0]
    torch.testing.assert_close(scores.masked_fill(later, 0), expected.masked_fill(later, 0), rtol=1e-5, atol=1e-4)
    limit = torch.full((rows, 1, length), k)
    positions = ops.select(features, EVERYTHING, limit, first=pads, backend="reference").positions[:, 0]
    assert all((positions[row, :first] < 0).all() for row, first in enumerate(pads))
    decided = 0
    for row, first in enumerate(pads.tolist()):
        for t in range(first, length):
            kept = {p for p in positions[row, t].tolist() if p >= 0}
            wanted = set(chosen[row, t].tolist())
            if t < first + k:  # theirs fills up with keys that its mask takes away; ours leaves slots empty
                wanted = {p for p in wanted if first <= p <= t}
            equal = {first + one for one in tied(expected[row, t, first : t + 1], k)}
            decided += not equal
            assert kept - equal == wanted - equal, (row, t)
            # keys that ReLU clips in every head score 0 alike: theirs takes any of them, ours the first ones
            assert kept & equal == set(sorted(equal)[: k - len(kept - equal)]), (row, t)
    assert decided > 0.8 * int((length - pads).sum())


@pytest.mark.parametrize("name", MODELS)
def test_position_matters_and_only_in_the_rotated_dims(name):
    """The comparison would see a rotation that is left out, or of other dims."""
    shape = SHAPES[0]
    indexer, (x, _), expected, _ = theirs(name, shape)
    own, later = ours(name, indexer, shape), torch.ones(96, 96, dtype=torch.bool).triu(1)
    for rotated in (0, 4, 16):
        own.rotary_dim = rotated
        with torch.no_grad():
            scores = own(x, Rotation(96, 10000.0)).scores(slice(0, 96), slice(0, 96))[:, 0]
        assert (scores - expected).masked_fill(later, 0).abs().max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_the_published_ones(name):
    config, node = MODELS[name][0](), compose([f"indexer={name}"]).indexer.node
    assert (node["heads"], node["dim"]) == (config.index_n_heads, config.index_head_dim)
    assert node["rotary_dim"] == config.qk_rope_head_dim
