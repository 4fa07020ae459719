"""Indexers without a reference in transformers, against their papers' equations written out query by query."""

import pytest
import torch
from conftest import SMALL
from indexers.ranking import EVERYTHING

from dsa import build_model, compose, ops
from dsa.backbones import Pass
from dsa.indexers import GroupBlockIndexer, LightningIndexer, TwoStageIndexer
from dsa.ops import Rotation, Zone
from dsa.ops.reference import to_mask
from dsa.ops.zones import spans
from dsa.precision import Integer

SHAPES = [  # rows, length, width, groups or heads, dims, tokens of a block, blocks that are kept or searched
    (2, 50, 32, 2, 16, 4, 3),
    (1, 67, 24, 3, 8, 8, 4),
    (2, 41, 16, 1, 8, 2, 6),
    (1, 43, 16, 2, 12, 5, 2),
]
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES)


def projected(indexer, x, heads):
    """Rotated queries [row, head, query, dim] and keys, from the indexer's own weights."""
    rotary = Rotation(x.shape[1], 10000.0)
    with torch.no_grad():
        return tuple(rotary(layer(x).unflatten(-1, (heads, -1)).transpose(1, 2))
                     for layer in (indexer.to_query, indexer.to_key))  # fmt: skip


def drawn(indexer, shape):
    torch.manual_seed(0)
    for weight in indexer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return torch.randn(*shape[:3])


def kept_by(indexer, x, limit, backend="reference"):
    """The keys that each query keeps [row, group, query, key]."""
    with torch.no_grad():
        scorer = indexer.scorer(indexer(x, Rotation(x.shape[1], 10000.0)))
    positions = ops.select(scorer, EVERYTHING, limit, backend=backend).positions.long()
    length = x.shape[1]
    mask = torch.zeros(*positions.shape[:3], length + 1, dtype=torch.bool)
    return mask.scatter(-1, positions.where(positions >= 0, length), True)[..., :length]


@EVERY_SHAPE
def test_moba_keeps_the_blocks_of_largest_mean_product_and_the_querys_own(shape):
    """Mixture of Block Attention, arXiv:2502.13189, eqs. 5 and 6: the current block is among the top k."""
    rows, length, width, groups, dim, unit, blocks = shape
    own = GroupBlockIndexer(width, groups, 1, dim, unit, "mean", False, False, local=1)
    x = drawn(own, shape)
    q, k = projected(own, x, groups)
    time = torch.arange(length)
    limit = ((blocks - 1) * unit + time % unit + 1).expand(rows, groups, -1)
    kept = kept_by(own, x, limit)
    for row, group, t in torch.cartesian_prod(*map(torch.arange, (rows, groups, length))).tolist():
        score = torch.tensor(
            [
                torch.inf if block == t // unit else q[row, group, t] @ k[row, group, block * unit :][:unit].mean(0)
                for block in range(t // unit + 1)
            ]
        )
        chosen = score.topk(min(blocks, len(score))).indices.tolist()
        wanted = [s for s in range(t + 1) if s // unit in chosen]
        assert kept[row, group, t].nonzero().flatten().tolist() == wanted, (row, group, t)


@EVERY_SHAPE
def test_quest_keeps_the_pages_of_largest_bound(shape):
    """Quest, arXiv:2406.10774, algorithm 1: sum_i max(q_i * M_i, q_i * m_i) over the page's largest and least keys.

    There a query in decoding ranks its open page with the others; here it is kept, as all that has no whole block is.
    """
    rows, length, width, groups, dim, unit, blocks = shape
    own = GroupBlockIndexer(width, groups, 1, dim, unit, "bounds", False, False, local=0)
    x = drawn(own, shape)
    q, k = projected(own, x, groups)
    with torch.no_grad():
        features = own(x, Rotation(length, 10000.0))
    scores = features.scores(slice(0, length), slice(0, length // unit)) * dim**0.5
    tail = (torch.arange(length) + 1) % unit
    kept = kept_by(own, x, (blocks * unit + tail).expand(rows, groups, -1))
    for row, group, t in torch.cartesian_prod(*map(torch.arange, (rows, groups, length))).tolist():
        query, pages = q[row, group, t], (t + 1) // unit
        keys = k[row, group, : pages * unit].unflatten(0, (pages, unit))
        bound = torch.maximum(query * keys.amax(1), query * keys.amin(1)).sum(-1)
        torch.testing.assert_close(scores[row, group, t, :pages], bound, rtol=1e-5, atol=1e-4)
        assert (keys @ query <= bound[:, None] + 1e-4).all(), "no token of a page scores above its bound"
        chosen = bound.topk(min(blocks, pages)).indices.tolist()
        wanted = [s for s in range(t + 1) if s // unit in chosen or s >= pages * unit]
        assert kept[row, group, t].nonzero().flatten().tolist() == wanted, (row, group, t)


def searched_by_hand(q, k, weights, t, unit, blocks):
    """The tokens of the blocks that HISA searches for a query, and the score of every token before it."""

    def score(keys):
        return torch.einsum("h,hn->n", weights[:, t], (q[:, t] @ keys.T).relu())

    own = t // unit
    between = score(torch.stack([k[block * unit :][:unit].mean(0) for block in range(1, own)])) if own > 1 else []
    best = sorted(range(len(between)), key=lambda n: (-float(between[n]), n))[: blocks - 2]  # ties to the earlier
    found = {0, own, *(n + 1 for n in best)}
    return [s for s in range(t + 1) if s // unit in found], score(k[: t + 1])


@EVERY_SHAPE
@pytest.mark.parametrize("backend", ["reference", "blocked", "cpu"])
def test_hisa_keeps_the_best_tokens_of_the_blocks_that_it_searches(shape, backend):
    """HISA, arXiv:2603.28458: blocks by the mean of their keys, the first and own always; then their tokens."""
    rows, length, width, heads, dim, unit, blocks = shape
    own = TwoStageIndexer(width, heads, dim, unit, blocks, weight="positive")
    x, k_most = drawn(own, shape), unit * blocks - unit + 1
    with torch.no_grad():
        features = own(x, Rotation(length, 10000.0))
    kept = kept_by(own, x, torch.full((rows, 1, length), k_most), backend)
    flat, fewer = 0, 0
    for row in range(rows):
        q, k, weights = features.queries[row, 0].transpose(0, 1), features.keys[row, 0], features.weights[row, 0].T
        for t in range(length):
            tokens, score = searched_by_hand(q, k, weights, t, unit, blocks)
            most = min(k_most, len(tokens))
            least = score[tokens].topk(most).values[-1]
            wanted = {s for s in tokens if score[s] > least + 1e-5}
            equal = {s for s in tokens if abs(score[s] - least) <= 1e-5}
            mine = set(kept[row, 0, t].nonzero().flatten().tolist())
            assert wanted <= mine <= wanted | equal and len(mine) == most, (row, t)
            flat += set(score.topk(most).indices.tolist()) == mine
            fewer += len(tokens) < t + 1
    assert fewer > 0 and flat < rows * length, "it must differ from a search of everything"


@pytest.mark.parametrize("pattern", ["causal", "local_global pattern.window=4", "sliding_window_32_16", "sinks"])
def test_hisa_chooses_no_key_that_it_has_not_searched(pattern):
    """The pattern hides most blocks, so that a search of the whole past would find fewer keys than are chosen."""
    settings = ["indexer=hisa", "indexer.block=4", "indexer.blocks=4", "indexer.init=0.5", "seq_len=96"]
    model, seen = build_model(compose([*SMALL, *settings, *f"pattern={pattern}".split(), "selector.k=8"]), 64), []
    with torch.no_grad():
        model.run(torch.randint(64, (1, 96)), Pass(observe=seen.append))
    (first, *_), time = seen, torch.arange(96)
    chosen = to_mask(first.selection, 96)[0, 0]
    for zone in first.zones:
        if zone.forced:
            start, count = (x[:, None] for x in zone.span(time))
            chosen &= ~((time >= start) & (time < start + count * zone.step))
    assert chosen.any() and first.scorer.scores(slice(0, 96), slice(0, 96))[0, 0][chosen].isfinite().all()


def test_a_search_of_every_block_is_the_lightning_indexer():
    torch.manual_seed(0)
    x, limit = torch.randn(2, 45, 24), torch.full((2, 1, 45), 6)
    own, flat = TwoStageIndexer(24, 2, 8, 4, 12), LightningIndexer(24, 2, 8)
    flat.load_state_dict(own.state_dict())
    assert torch.equal(kept_by(own, x, limit), kept_by(flat, x, limit))
    own.blocks = 3
    assert not torch.equal(kept_by(own, x, limit), kept_by(flat, x, limit))


@pytest.mark.parametrize("scale", ["row", "tensor"])
def test_blocks_are_ranked_by_the_mean_of_keys_that_are_held_as_integers(scale):
    torch.manual_seed(0)
    own, x = TwoStageIndexer(24, 2, 8, 4, 3), torch.randn(2, 45, 24)
    with torch.no_grad():
        cast = Integer(8, scale).cast(own(x, Rotation(45, 10000.0)))
    every = slice(0, 45), slice(0, 11)
    means = cast.keys[:, :, :44].unflatten(2, (11, 4)).mean(3)
    wanted = cast._replace(keys=means, integers=None).scores(*every)
    torch.testing.assert_close(own.scorer(cast).means.scores(*every), wanted)


def test_fewer_blocks_cost_fewer_operations():
    costs = []
    for blocks in (2, 4, 8, 16):
        own = TwoStageIndexer(24, 2, 8, 4, blocks)
        costs.append(own.scorer(own(torch.zeros(1, 1, 24), Rotation(1, 10000.0))).cost(EVERYTHING, 64))
    pair, time = 2 * 2 * 8 + 3 * 2, range(64)
    for blocks, cost in zip((2, 4, 8, 16), costs, strict=True):
        assert cost == pair * sum(min(t + 1, (blocks - 1) * 4 + t % 4 + 1) + max(t // 4 - 1, 0) for t in time)
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    "zones",
    [
        EVERYTHING,
        (Zone(0, keep="all"), Zone(None, 1)),
        (Zone(6, keep="all"), Zone(None, 7)),
        (Zone(None, 0, end=9), Zone(30, 9, step=3)),
    ],
)
def test_no_fewer_keys_are_counted_than_are_shown_and_searched_and_not_one_more_where_all_is_shown(zones):
    length, unit = 61, 4
    own, x = TwoStageIndexer(24, 2, 8, unit, 4), torch.randn(3, length, 24)
    with torch.no_grad():
        scorer = own.scorer(own(x, Rotation(length, 10000.0)), (zones,))
        searched = scorer.searched(slice(0, length), 0)[:, 0].repeat_interleave(unit, -1)[..., :length]
    scored = torch.zeros(length, length, dtype=torch.bool)
    for span in spans(zones, torch.zeros(1, 1, length, dtype=torch.int64)):
        for t in range(length):
            keys = span.start[0, 0, t] + span.step * torch.arange(int(span.count[0, 0, t]))
            scored[t, keys] |= not span.forced
    held = torch.nn.functional.pad(scored, (0, -length % unit)).unflatten(-1, (-1, unit)).any(-1)
    between = [(t, block) for t in range(length) for block in range(1, t // unit) if held[t, block]]
    met, pair = (searched & scored).sum((1, 2)).max().item(), 2 * 2 * 8 + 3 * 2
    counted = scorer.cost(zones, length) / pair - len(between)
    assert (counted == met if zones is EVERYTHING else counted >= met) and met > 0
    for t in range(length):  # no block is searched in vain
        blocks = searched[0, t, ::unit].nonzero().flatten().tolist()
        assert all(held[t, block] for block in blocks if 0 < block < t // unit)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "median"}, r"indexer\.pool = median: give max, mean or bounds"),
        ({"unit": 0}, r"indexer\.unit = 0: give a whole number from 1"),
        ({"local": -1}, r"indexer\.local = -1: give a whole number from 0"),
        ({"rotary_dim": 10}, r"indexer\.rotary_dim = 10: more than indexer\.dim = 8"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    whole = {"heads": 1, "dim": 8, "unit": 4, "pool": "max", "shared_key": True, "norm": True, "local": 1}
    with pytest.raises(ValueError, match=message):
        GroupBlockIndexer(16, 2, **whole | settings)


def test_a_search_has_room_for_the_first_block_and_the_querys_own():
    with pytest.raises(ValueError, match=r"indexer\.blocks = 1: give a whole number from 2"):
        TwoStageIndexer(16, 2, 8, 4, 1)
