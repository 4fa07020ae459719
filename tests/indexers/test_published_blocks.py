"""Indexers of published models that choose blocks: the scores and keys of transformers' own code."""

import random

import pytest
import torch
from indexers.ranking import Ranked, assert_same_blocks

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from transformers.models.deepseek_v4 import configuration_deepseek_v4 as deepseek_settings
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as deepseek
from transformers.models.glm5_next import configuration_glm5_next as glm_settings
from transformers.models.glm5_next import modeling_glm5_next as glm
from transformers.models.minimax_m3_vl import configuration_minimax_m3_vl as minimax_settings
from transformers.models.minimax_m3_vl import modeling_minimax_m3_vl as minimax
from transformers.models.qwen4_exp import configuration_qwen4_exp as qwen_settings
from transformers.models.qwen4_exp import modeling_qwen4_exp as qwen

from dsa import compose
from dsa.indexers import BlockMeanIndexer, GatedPoolIndexer, GroupBlockIndexer, OverlappingPoolIndexer
from dsa.ops import Rotation


def random_shape(seed):
    """What SHAPES holds, drawn: no row is made of whole blocks, and far fewer are kept than there are."""
    draw = random.Random(seed)
    unit, blocks, dim = draw.randint(2, 12), draw.randint(1, 4), 2 * draw.randint(2, 20)
    rows, width, heads = draw.randint(1, 3), 4 * draw.randint(3, 16), draw.randint(3, 7)
    rotated = 2 * draw.randint(1, dim // 2)
    length = unit * (3 * blocks + draw.randint(3, 9)) + draw.randint(1, unit - 1)
    return rows, length, width, heads, dim, rotated, unit, blocks


SHAPES = [  # rows, length, width, heads, dims, rotated dims, tokens of a block, blocks that are kept
    (2, 50, 32, 5, 16, 8, 4, 3),
    (1, 97, 48, 4, 32, 32, 8, 3),
    (2, 41, 24, 4, 8, 4, 2, 5),
    (1, 61, 16, 6, 12, 6, 5, 2),
    (1, 75, 32, 4, 16, 2, 16, 2),
    *(random_shape(seed) for seed in range(2)),
]
PADDED = pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
LATENT = pytest.mark.parametrize("rank", [None, 20], ids=["hidden", "latent"])
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}


def drawn(indexer, shape):
    """The indexer with random weights, hidden states, and their positions."""
    for weight in indexer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return torch.randn(*shape[:3]), torch.arange(shape[1]).expand(shape[0], -1)


def before(shape, padded):
    """Tokens of padding before each row's first, whole blocks; positions within the row, below 0 in its padding."""
    pads = 2 * shape[6] * (torch.arange(shape[0]) + 1) * padded
    return pads, torch.arange(shape[1]) - pads[:, None]


def latent_of(x, rank):
    """The latent of the queries; without a rank it is the hidden states."""
    return x if rank is None else torch.randn(*x.shape[:2], rank)


def answer(own, x, latent=None):
    with torch.no_grad():
        return own(x, Rotation(x.shape[1], 10000.0), latent=latent)


@PADDED
@EVERY_SHAPE
def test_qsa_scores_and_keeps_as_qwen4(shape, padded):
    rows, length, width, heads, dim, rotated, unit, blocks = shape
    config = qwen_settings.Qwen4ExpTextConfig(
        hidden_size=width, head_dim=rotated, indexer_n_heads=heads, indexer_kv_heads=1, indexer_head_dim=dim,
        indexer_budget=blocks * unit, indexer_compress_ratio=unit, rope_parameters=ROPE,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = qwen.Qwen4ExpTextQSAIndexer(config, 0)
    x, _ = drawn(theirs, shape)
    pads, time = before(shape, padded)
    causal = torch.ones(length, length, dtype=torch.bool).tril() & (time >= 0)[:, None, None]
    with torch.no_grad(), Ranked() as ranked:
        wanted = theirs(x, qwen.Qwen4ExpTextRotaryEmbedding(config)(x, time.clamp(min=0)), causal, None)
    given = iter(ranked.scores)
    expected = torch.zeros(rows, 1, length, length // unit)
    for row in range(rows):
        for t in range(int(pads[row]) + unit - 1, length):
            expected[row, 0, t, pads[row] // unit : (t + 1) // unit] = next(given)
    own = BlockMeanIndexer(width, heads, dim, unit, rotary_dim=rotated)
    with torch.no_grad():
        query, key = theirs.index_qk_proj.weight.split([heads * dim, dim])
        own.to_query.weight.copy_(query)
        own.to_key.weight.copy_(key)
        own.query_norm.weight.copy_(1 + theirs.q_layernorm.weight)  # theirs is written as a difference to 1
        own.key_norm.weight.copy_(1 + theirs.k_layernorm.weight)
    # theirs keeps the open block beside its budget, ours within it
    open_block = (time + 1).clamp(min=0) % unit
    assert_same_blocks(answer(own, x), expected, wanted, blocks, open_block, pads)


@PADDED
@EVERY_SHAPE
@LATENT
def test_gated_pools_score_and_are_kept_as_in_glm5_next(shape, padded, rank):
    rows, length, width, heads, dim, _, unit, blocks = shape
    config = glm_settings.Glm5NextTextConfig(
        hidden_size=width, q_lora_rank=rank or width, index_n_heads=heads, index_head_dim=dim,
        index_topk=blocks * unit,
        index_kpool=unit, index_kpool_always_select_tail=True,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = glm.Glm5NextTextIndexer(config, 0)
    x, _ = drawn(theirs, shape)
    latent = latent_of(x, rank)
    pads, time = before(shape, padded)
    with Ranked() as ranked:
        chosen = theirs(x, latent, time >= 0, None).long()
    expected = torch.zeros(rows, 1, length, length // unit)
    for row, skipped in enumerate((pads // unit).tolist()):  # its pools begin with the row's first token
        expected[row, 0, :, skipped:] = ranked.scores[0][row, :, : length // unit - skipped]
    wanted = torch.zeros(rows, length, length + 1, dtype=torch.bool)
    wanted.scatter_(-1, chosen.where(chosen >= 0, length), True)
    own = GatedPoolIndexer(width, heads, dim, unit, rotary_dim=0, latent=rank is not None, latent_width=rank or 0)
    with torch.no_grad():
        own.to_query.weight.copy_(theirs.wq_b.weight)
        own.to_key.weight.copy_(theirs.wk.weight)
        own.to_weight.weight.copy_(theirs.weights_proj.weight)
        own.key_norm.load_state_dict(theirs.k_norm.state_dict())
        own.to_gate.weight.copy_(theirs.index_kpool_compress_gate)
        own.place.copy_(theirs.index_kpool_compress_ape)
    # theirs keeps the open pool beside its budget, ours within it
    open_pool = (time + 1).clamp(min=0) % unit
    assert_same_blocks(answer(own, x, latent), expected, wanted[:, None, :, :length], blocks, open_pool, pads)


def minimax_indexer(shape, local):
    """Their indexer, and its rotary embedding."""
    _, _, width, groups, dim, rotated, unit, blocks = shape
    config = minimax_settings.MiniMaxM3VLTextConfig(
        hidden_size=width, head_dim=dim, rotary_dim=rotated, num_attention_heads=2 * groups, num_key_value_heads=groups,
        index_n_heads=groups, index_head_dim=dim, index_block_size=unit, index_topk_blocks=blocks + local,
        index_local_blocks=local, rope_parameters={**ROPE, "partial_rotary_factor": rotated / dim},
    )  # fmt: skip
    torch.manual_seed(0)
    return minimax.MiniMaxM3VLIndexer(config, 0), minimax.MiniMaxM3VLRotaryEmbedding(config)


def deepseek_indexer(shape, rank=None):
    """Their indexer; without a rank the latent of its queries is as wide as the hidden states."""
    _, _, width, heads, dim, rotated, unit, blocks = shape
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": rotated / dim}
    config = deepseek_settings.DeepseekV4Config(
        hidden_size=width, head_dim=dim, q_lora_rank=rank or width, index_n_heads=heads, index_head_dim=dim,
        index_topk=blocks,
        compress_rates={"compressed_sparse_attention": unit, "heavily_compressed_attention": 2 * unit},
    )  # fmt: skip
    config.rope_parameters = {"main": rope, "compress": rope}
    torch.manual_seed(0)
    return deepseek.DeepseekV4Indexer(config)


@EVERY_SHAPE
@pytest.mark.parametrize("local", [1, 2])
def test_blocks_of_each_group_score_and_are_kept_as_in_minimax_m3(shape, local):
    _, length, width, groups, dim, rotated, unit, blocks = shape
    theirs, rotary = minimax_indexer(shape, local)
    x, positions = drawn(theirs, shape)
    with torch.no_grad(), Ranked() as ranked:
        chosen = theirs(x, rotary(x, positions), None, positions)
        mask = theirs.build_block_mask(chosen, None, length, torch.float32, x.device, positions)
    wanted = mask[:, ::2] == 0  # a group's two heads have one mask
    own = GroupBlockIndexer(width, groups, 1, dim, unit, "max", True, True, local, rotary_dim=rotated)
    with torch.no_grad():
        own.to_query.weight.copy_(theirs.q_proj.weight)
        own.to_key.weight.copy_(theirs.k_proj.weight)
        own.query_norm.weight.copy_(1 + theirs.q_norm.weight)  # theirs is written as a difference to 1
        own.key_norm.weight.copy_(1 + theirs.k_norm.weight)
    expected = ranked.scores[0][..., : length // unit] * dim**-0.5  # theirs are not scaled, which ranks alike
    time = torch.arange(length)
    kept_anyway = time + 1 - ((time // unit - local + 1) * unit).clamp(min=0)
    assert_same_blocks(answer(own, x), expected, wanted, blocks, kept_anyway)


@EVERY_SHAPE
@LATENT
def test_overlapping_pools_score_and_are_chosen_as_in_deepseek_v4(shape, rank):
    rows, length, width, heads, dim, rotated, unit, blocks = shape
    theirs = deepseek_indexer(shape, rank)
    x, positions = drawn(theirs, shape)
    latent = latent_of(x, rank)
    with torch.no_grad(), Ranked() as ranked:
        chosen = theirs(x, latent, positions, None, 0)
    expected = ranked.scores[0][:, None]
    units = length // unit
    pools = torch.zeros(rows, length, units + 1, dtype=torch.bool)
    pools.scatter_(-1, chosen.where(chosen >= 0, units), True)
    # its window keeps what is near; the pool that is open has no entry, and ours keeps it
    open_pool = (torch.arange(length) + 1) % unit
    tail = torch.arange(length) > (torch.arange(length) - open_pool)[:, None]
    wanted = torch.zeros(rows, length, length, dtype=torch.bool)
    wanted[..., : units * unit] = pools[..., :units].repeat_interleave(unit, -1)
    wanted |= tail & torch.ones(length, length, dtype=torch.bool).tril()
    own = OverlappingPoolIndexer(
        width, heads, dim, unit, rotary_dim=rotated, latent=rank is not None, latent_width=rank or 0
    )
    last = torch.arange(dim - rotated, dim)  # it turns the last dims, neighbours against each other
    order = torch.cat([last[0::2], last[1::2], torch.arange(dim - rotated)])
    both = torch.cat([order, dim + order])
    with torch.no_grad():
        own.to_query.weight.copy_(theirs.q_b_proj.weight.unflatten(0, (heads, dim))[:, order].flatten(0, 1))
        own.to_key.weight.copy_(theirs.kv_proj.weight[both])
        own.to_gate.weight.copy_(theirs.gate_proj.weight[both])
        own.to_weight.weight.copy_(theirs.scorer.weights_proj.weight)
        own.place.copy_(theirs.position_bias[:, both])
        own.key_norm.weight.copy_(theirs.kv_norm.weight[order])
    assert_same_blocks(answer(own, x, latent), expected, wanted[:, None], blocks, open_pool)


@torch.no_grad()
@EVERY_SHAPE
@pytest.mark.parametrize("name", ["minimax_m3", "deepseek_v4"])
def test_padding_on_the_left_is_not_served_by_theirs(name, shape):
    """Theirs compares places of keys with positions of queries, so as many of the nearest keys as there is padding are
    the future to a query, and the padding is its past; their own tests leave this out. Ours scores rows without it.
    """
    if name == "minimax_m3":
        theirs, rotary = minimax_indexer(shape, local=1)
    else:
        theirs, rotary = deepseek_indexer(shape), None
    x, positions = drawn(theirs, shape)
    rows, unit, pads = shape[0], shape[6], 2 * shape[6]
    x = torch.cat([torch.randn(rows, pads, shape[2]), x], 1)
    positions = torch.cat([torch.zeros(rows, pads, dtype=torch.long), positions], 1)
    chosen = theirs(x, x, positions, None, 0) if rotary is None else theirs(x, rotary(x, positions), None, positions)
    chosen, last = chosen[..., pads:, :], positions[0, pads:]
    assert (chosen.amax(-1) <= last // unit).all()  # the nearest of these blocks lies two before the query's own
    assert (chosen == 0).any()  # a block of padding


def test_sizes_are_the_published_ones():
    node = compose(["indexer=glm5_kpool"]).indexer.node
    config = glm_settings.Glm5NextTextConfig()
    assert (node["heads"], node["dim"], node["unit"]) == (
        config.index_n_heads, config.index_head_dim, config.index_kpool
    )  # fmt: skip
    node = compose(["indexer=minimax_m3"]).indexer.node
    config = minimax_settings.MiniMaxM3VLTextConfig()
    assert (node["dim"], node["unit"], node["local"], node["rotary_dim"]) == (
        config.index_head_dim, config.index_block_size, config.index_local_blocks, config.rotary_dim
    )  # fmt: skip
    assert config.index_n_heads == config.num_key_value_heads  # heads: 1 of each
    node = compose(["indexer=deepseek_v4_csa"]).indexer.node
    config = deepseek_settings.DeepseekV4Config()
    assert (node["heads"], node["dim"], node["unit"]) == (
        config.index_n_heads, config.index_head_dim, config.compress_rates["compressed_sparse_attention"]
    )  # fmt: skip
    assert node["rotary_dim"] == config.head_dim * config.rope_parameters["compress"]["partial_rotary_factor"]
