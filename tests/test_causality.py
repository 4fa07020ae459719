"""Nothing at a position depends on later tokens."""

import pytest
import torch
from conftest import SMALL, fitting, indexers, options
from omegaconf import OmegaConf

from dsa import build_model, compose
from dsa.config import config_dir

CHANGE = 40
PATTERNS = options("pattern")
SELECTORS = options("selector")
SIZES = {f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (1, 2, 4, 8, 16, 32, 64)}  # of one kind


def past_and_changed(overrides):
    """Logits before CHANGE, with and without another future; weights large enough for scores to matter."""
    model = build_model(compose([*SMALL, "seq_len=96", "data.pairs=4", "data.gap=16", *overrides]), 64).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.3, generator=generator))
    tokens = torch.randint(64, (2, 96), generator=generator)
    changed = tokens.clone()
    changed[:, CHANGE:] = (tokens[:, CHANGE:] + 1) % 64
    with torch.no_grad():
        was, now = model(tokens), model(changed)
    return was[:, :CHANGE], now[:, :CHANGE], now[:, CHANGE:], was[:, CHANGE:]


def assert_causal(overrides):
    past, same, future, other = past_and_changed(overrides)
    assert torch.equal(past, same)
    assert not torch.equal(future, other)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_changing_the_future_leaves_the_past_untouched_under_every_pattern(pattern):
    assert_causal([f"pattern={pattern}", "selector.k=8"])


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


@pytest.mark.parametrize("indexer", ["h1d1", "h1d8", "h4d64", "ultra_light"])
@pytest.mark.parametrize("precision", options("precision"))
def test_changing_the_future_leaves_the_past_untouched_under_every_precision(indexer, precision):
    assert_causal(["pattern=causal", "selector.k=8", f"indexer={indexer}", f"precision={precision}"])


@pytest.mark.parametrize("indexer", [n for n in indexers() if n not in SIZES])
def test_changing_the_future_leaves_the_past_untouched_with_every_kind_of_indexer(indexer):
    assert_causal(["pattern=causal", "selector.k=10", *fitting("indexer", indexer)])


@pytest.mark.parametrize("ops", ["reference", "blocked", "cpu"])
@pytest.mark.parametrize("pattern", ["causal", "hierarchical_8_32_16", "sinks"])
def test_changing_the_future_leaves_the_past_untouched_in_every_backend(ops, pattern):
    assert_causal([f"pattern={pattern}", "selector.k=8", f"ops={ops}"])
