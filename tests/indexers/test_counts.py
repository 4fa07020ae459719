"""Parameter counts as published, and gradients that stay inside."""

import functools

import pytest
import torch
from conftest import indexers
from torch.utils.flop_counter import FlopCounterMode

from dsa import compose
from dsa.ops import Mixed, Rotation

PUBLISHED = {"h4d64": 82_944, "h2d32": 25_088, "h1d16": 8_448, "ultra_light": 4_096}


@functools.cache
def part_of(name):
    return compose([f"indexer={name}"]).indexer


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_per_layer_at_width_256_are_as_published(name, count):
    indexer = part_of(name).make(d_model=256)
    own, norm = indexer.parameter_counts()
    assert own == count
    assert norm == 2 * indexer.dim


@pytest.mark.parametrize("name", indexers())
def test_the_comment_of_every_indexer_states_its_parameters(name):
    from dsa.config import config_dir

    part = part_of(name)
    indexer = part.make(**part.cls.given(width=256, kv_heads=4, latent=0))
    first = (config_dir() / "indexer" / f"{name}.yaml").read_text().splitlines()[0]
    assert f"{indexer.parameter_counts()[0]:,} parameters" in first


@pytest.mark.parametrize("name", ["h3d16", "h1d1", "ultra_light"])
def test_no_gradient_reaches_the_hidden_states(name):
    indexer = part_of(name).make(d_model=128)
    x = torch.randn(2, 6, 128, requires_grad=True)
    features = indexer(x, Rotation(6, 10000.0))
    assert features.queries.shape == (2, 1, 6, indexer.heads, indexer.dim)
    assert features.keys.shape == (2, 1, 6, indexer.dim)
    features.queries.sum().backward()
    assert x.grad is None


def test_scores_depend_on_the_distance_alone():
    """Rotary on queries and keys alike: moving both by the same distance changes no score."""

    torch.manual_seed(0)  # of seeds in general one in six leaves too few scores above zero
    indexer = compose(["indexer=h2d16"]).indexer.make(d_model=128)
    x = torch.randn(1, 1, 128).expand(1, 12, 128)
    scores = indexer(x, Rotation(12, 10000.0)).scores(slice(0, 12), slice(0, 12))[0, 0]
    for distance in range(1, 12):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[11].unique().numel() > 6


@pytest.mark.parametrize("name", indexers())
def test_projections_cost_what_the_counter_counts(name):
    """Without positions: what they cost is no matrix product."""
    part = part_of(name)
    indexer = part.make(**part.cls.given(width=32, kv_heads=2, latent=0))
    with FlopCounterMode(display=False) as counter:
        features = indexer(torch.randn(1, 128, 32), Rotation(128, 10000.0))
    picked = features.picked.shares() if isinstance(features, Mixed) else None
    means = indexer.prefix * 32  # of hidden states: no matrix product
    expected = indexer.routing_flops(128) - means
    for work in indexer.work(128, picked):
        own = work.indexer.projection_flops
        expected += work.share * (own(work.last) - own(work.known))
    assert counter.get_total_flops() == expected
