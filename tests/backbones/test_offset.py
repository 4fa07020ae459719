"""A row that comes in parts: with the cache of what was before, each part sees what the whole row would show it."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.backbones import Cache, Pass

TOPK = ["selector.k=8"]
BY_POSITION = ["selector=adaptive_position", "selector.min_k=2", "selector.max_k=16", "selector.target_mean=6"]
PATTERNS = {
    "causal": ["pattern=causal"],
    "local_global": ["pattern=local_global", "pattern.window=8", "pattern.budget=12"],
    "strided": ["pattern=strided"],
    "sinks": ["pattern=local_global_sinks", "pattern.window=3", "pattern.budget=12"],
}


def build(*overrides):
    return build_model(compose([*SMALL, "model.conv=3", *overrides]), 64).eval()


def kept(observations):
    """The keys of each query at each layer, as sets."""
    rows = {}
    for seen in observations:
        if seen.selection is None:  # every key up to each query
            time, keys = seen.queries.shape[2], seen.keys.shape[2]
            every = [[list(range(keys - time + t + 1)) for t in range(time)]] * len(seen.queries)
        else:
            every = [[[p for p in t if p >= 0] for t in row[0].tolist()] for row in seen.selection.positions]
        for row, queries in enumerate(every):
            rows.setdefault((seen.layer, row), []).extend(queries)
    return rows


@torch.no_grad()
def whole_and_parts(model, tokens, cuts, sparse=True):
    """Logits and kept keys of one pass, and of one for each part."""
    whole, parts = [], []
    expected = model.run(tokens, Pass(sparse=sparse, observe=whole.append)).logits
    how = Pass(sparse=sparse, cache=Cache(), observe=parts.append)
    got = torch.cat([model.run(part, how).logits for part in tokens.tensor_split(cuts, 1)], 1)
    assert how.cache.length == tokens.shape[1]
    return (expected, kept(whole)), (got, kept(parts))


@pytest.mark.parametrize("selector", [TOPK, BY_POSITION], ids=["topk", "adaptive_position"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_two_halves_equal_the_whole(pattern, selector, sparse):
    tokens = torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))
    whole, halves = whole_and_parts(build(*PATTERNS[pattern], *selector), tokens, [32], sparse)
    torch.testing.assert_close(halves[0], whole[0], atol=1e-5, rtol=0)
    assert halves[1] == whole[1]
    assert bool(whole[1]) == sparse


@pytest.mark.slow
@pytest.mark.parametrize("selector", [TOPK, BY_POSITION], ids=["topk", "adaptive_position"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_token_by_token_equals_the_whole(pattern, selector):
    tokens = torch.randint(64, (1, 24), generator=torch.Generator().manual_seed(1))
    whole, steps = whole_and_parts(build(*PATTERNS[pattern], *selector), tokens, list(range(1, 24)))
    torch.testing.assert_close(steps[0], whole[0], atol=1e-5, rtol=0)
    assert steps[1] == whole[1]


@pytest.mark.parametrize("selector", ["oracle", "random", "window"])
def test_controls_choose_by_position_and_not_by_place_in_the_part(selector):
    tokens = torch.randint(64, (2, 48), generator=torch.Generator().manual_seed(2))
    whole, parts = whole_and_parts(build("pattern=causal", f"selector={selector}", "selector.k=6"), tokens, [7, 8, 30])
    torch.testing.assert_close(parts[0], whole[0], atol=1e-5, rtol=0)
    assert parts[1] == whole[1]


def test_a_shared_choice_is_continued_too():
    tokens = torch.randint(64, (2, 48), generator=torch.Generator().manual_seed(3))
    model = build("pattern=causal", *TOPK)
    model.attach(list(model.routers)[:1], [0, 0])
    whole, parts = whole_and_parts(model, tokens, [20])
    torch.testing.assert_close(parts[0], whole[0], atol=1e-5, rtol=0)
    assert parts[1] == whole[1]
