"""What the weight of a head may be, and what is told where a head clips what it should rank."""

import pytest
import torch

from dsa import compose
from dsa.artifacts.results import RunResult
from dsa.indexers import LightningIndexer
from dsa.ops.rotary import Rotation
from dsa.training.caveats import clipped


def scored(weight: str):
    """An indexer of two heads, its features and its scores, [batch query key]."""
    torch.manual_seed(0)
    indexer = LightningIndexer(24, heads=2, dim=8, weight=weight)
    features = indexer.score(torch.randn(2, 12, 24), Rotation(12, 100.0))
    return features, features.scores(slice(0, 12), slice(0, 12))[:, 0]


@pytest.mark.parametrize(("weight", "sign"), [("positive", 1), ("negative", -1), ("absolute", 1)])
def test_weights_keep_to_their_sign(weight, sign):
    features, scores = scored(weight)
    assert (features.weights * sign > 0).all()
    products = torch.einsum("bthd,bsd->bhts", features.queries[:, 0], features.keys[:, 0])
    matched = torch.einsum("bth,bhts->bts", features.weights[:, 0], products.relu())
    assert torch.allclose(scores, matched, atol=1e-6)
    away = (products <= 0).all(1)  # that both heads clip: last among positive weights, first among negative ones
    assert away.any() and (scores[away] == 0).all() and (scores[~away] * sign > 0).all()


def test_negative_weights_begin_at_the_size_of_positive_ones():
    assert torch.equal(scored("negative")[0].weights, -scored("positive")[0].weights)
    indexer = LightningIndexer(24, heads=2, dim=8, weight="negative")
    torch.nn.init.zeros_(indexer.to_weight.weight)
    weights = indexer.score(torch.randn(1, 5, 24), Rotation(5, 100.0)).weights
    assert torch.allclose(weights, torch.full_like(weights, -(16**-0.5)))


@pytest.mark.parametrize(
    ("zeros", "mass", "named"), [(0.99, 0.6, True), (0.99, 0.88, False), (0.5, 0.6, False), (None, 0.6, False)]
)
def test_a_layer_whose_indexer_clips_what_it_should_rank_is_named(zeros, mass, named):
    layers = [
        {"layer": 6, "zero_share": 0.1, "mass": 0.85, "oracle_mass": 0.9},
        {"layer": 25, "zero_share": zeros, "mass": mass, "oracle_mass": 0.9},
    ]
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, selection={"layers": layers})
    for indexer, weighted in (("h1d16", True), ("qwen4_qsa", False)):  # a setting that it does not have helps nobody
        told = clipped(compose([f"indexer={indexer}"]), result)
        assert [("layer 25 scores" in text, "weight=negative" in text) for text in told] == [(True, weighted)] * named
