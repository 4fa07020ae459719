"""Nothing at a position depends on later tokens."""

import pytest
import torch
from conftest import SMALL, fitting, indexers, options
from omegaconf import OmegaConf

from dsa import build_model, compose
from dsa.config import config_dir

CHANGES = 40, 42  # where blocks of 4 begin, and within one
PATTERNS = options("pattern")
SELECTORS = options("selector")
SIZES = {f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (1, 2, 4, 8, 16, 32, 64)}  # of one kind


@torch.no_grad()
def assert_causal(overrides):
    """Logits before a change are the same with another future; weights large enough for scores to matter."""
    model = build_model(compose([*SMALL, "seq_len=96", "data.pairs=4", "data.gap=16", *overrides]), 64).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=generator))
    tokens = torch.randint(64, (2, 96), generator=generator)
    was = model(tokens)
    for change in CHANGES:
        changed = tokens.clone()
        changed[:, change:] = (tokens[:, change:] + 1) % 64
        now = model(changed)
        assert torch.equal(was[:, :change], now[:, :change]), change
        assert not torch.equal(was[:, change:], now[:, change:]), change


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_changing_the_future_leaves_the_past_untouched_under_every_pattern(pattern):
    assert_causal([f"pattern={pattern}", "selector.k=8"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "causal",
        "hierarchical_8_32_16",
        pytest.param("local_global_16_32", marks=pytest.mark.slow),
        pytest.param("sliding_window_32_16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("selector", SELECTORS)
def test_changing_the_future_leaves_the_past_untouched_under_every_selector(pattern, selector):
    small = {"min_k": 2, "max_k": 16, "start_k": 2, "end_k": 8, "k": 8}
    keys = OmegaConf.load(config_dir() / "selector" / f"{selector}.yaml")
    overrides = [f"selector.{name}={value}" for name, value in small.items() if name in keys]
    assert_causal([f"pattern={pattern}", f"selector={selector}", *overrides])


@pytest.mark.parametrize(
    "indexer", ["h1d8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("h1d1", "h4d64", "ultra_light"))]
)
@pytest.mark.parametrize("precision", options("precision"))
def test_changing_the_future_leaves_the_past_untouched_under_every_precision(indexer, precision):
    assert_causal(["pattern=causal", "selector.k=8", f"indexer={indexer}", f"precision={precision}"])


@pytest.mark.parametrize("indexer", [n for n in indexers() if n not in SIZES])
def test_changing_the_future_leaves_the_past_untouched_with_every_kind_of_indexer(indexer):
    assert_causal(["pattern=causal", "selector.k=10", *fitting("indexer", indexer)])


ENTRIES = ["model.kv=csa", "model.kv_window=8", "pattern=causal"]


@pytest.mark.parametrize("selector", SELECTORS)
def test_changing_the_future_leaves_the_past_untouched_with_entries_under_every_selector(selector):
    small = {"min_k": 8, "max_k": 24, "start_k": 8, "end_k": 16, "k": 16}
    keys = OmegaConf.load(config_dir() / "selector" / f"{selector}.yaml")
    overrides = [f"selector.{name}={value}" for name, value in small.items() if name in keys]
    assert_causal([*ENTRIES, *fitting("indexer", "deepseek_v4_csa"), f"selector={selector}", *overrides])


@pytest.mark.parametrize("indexer", ["block_mean", "glm5_kpool", "minimax_m3", "moba", "quest"])
@pytest.mark.parametrize("overlap", ["true", "false"])
def test_changing_the_future_leaves_the_past_untouched_with_entries_and_every_kind_of_blocks(indexer, overlap):
    assert_causal([*ENTRIES, *fitting("indexer", indexer), f"model.kv_overlap={overlap}", "selector.k=16"])


@pytest.mark.parametrize("ops", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("pattern", ["causal", "hierarchical_8_32_16", "sinks"])
def test_changing_the_future_leaves_the_past_untouched_in_every_backend(ops, pattern):
    assert_causal([f"pattern={pattern}", "selector.k=8", f"ops={ops}"])
