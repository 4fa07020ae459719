"""Blocks by their mean key: nothing of a block before it is whole."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.indexers import BlockMeanIndexer
from dsa.ops import Rotation


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


def test_a_block_of_one_token_is_a_token():
    indexer = BlockMeanIndexer(32, 2, 8, 1)
    features = indexer(torch.randn(1, 7, 32), Rotation(7, 10000.0))
    assert (features.unit, features.units, features.forced) == (1, 7, ())


@pytest.mark.parametrize("unit", [0, 2.5, True])
@pytest.mark.usefixtures("untyped")
def test_a_block_has_a_token_or_more(unit):
    with pytest.raises(ValueError, match=r"indexer\.unit = .*: give a whole number from 1"):
        BlockMeanIndexer(32, 2, 8, unit)
