"""Index scores in integers: the kernels select exactly the keys of the definition."""

import pytest
import torch

from dsa.ops import IndexFeatures, Zone, indexer_loss, select
from dsa.ops.native import multiplies
from dsa.precision import Integer

HERE = pytest.mark.skipif(not multiplies(torch.int8), reason="this processor does not multiply integers of 8 bits")
EVERYTHING = (Zone(first=None),)
STRIDED = (Zone(first=0, keep="all"), Zone(first=None, last=3, step=3))


def cast(heads, dim, scale="row", time=300, groups=1, weighted=True, **settings):
    draw = torch.Generator().manual_seed(heads * 100 + dim)
    queries = torch.randn(2, groups, time, heads, dim, generator=draw)
    keys = torch.randn(2, 1, time, dim, generator=draw)
    weights = torch.randn(2, groups, time, heads, generator=draw) if weighted else None
    return Integer(8, scale).cast(IndexFeatures(queries, keys, weights, **settings))


SCORERS = {
    "one head": cast(1, 8),
    "four heads": cast(4, 64),
    "dims that are no multiple of four": cast(3, 10),
    "one dim": cast(1, 1),
    "a scale of the tensor": cast(2, 16, "tensor"),
    "two groups": cast(2, 16, groups=2),
    "no weights": cast(1, 8, weighted=False),
    "no activation": cast(2, 16, activation="none"),
}


@HERE
@pytest.mark.parametrize("zones", [EVERYTHING, STRIDED], ids=["every key", "every third"])
@pytest.mark.parametrize("name", SCORERS)
def test_the_kernels_select_the_same_keys_as_the_definition(name, zones):
    assert_same_keys(SCORERS[name], zones)


@HERE
@pytest.mark.parametrize("pool", ["entry", "max"])
def test_units_of_several_tokens_are_selected_alike(pool):
    whole = cast(1, 8, time=304)
    entries = whole._replace(keys=whole.keys[:, :, ::4]) if pool == "entry" else whole
    assert_same_keys(Integer(8, "row").cast(entries._replace(unit=4, pool=pool)), EVERYTHING)


def assert_same_keys(scorer, zones):
    limit = torch.full((2, scorer.groups, scorer.queries.shape[2]), 24)
    chosen = [select(scorer, zones, limit, backend=backend) for backend in ("cpu", "blocked", "reference")]
    for other in chosen[1:]:
        assert torch.equal(chosen[0].positions, other.positions)


@HERE
def test_the_largest_integers_do_not_overflow():
    """All 127: the largest of all dot products, and one key that is smaller by one step of one dim."""
    keys = torch.full((1, 1, 64, 1024), 127.0)
    keys[..., 1:, 0] = 126.0
    scorer = Integer(8, "row").cast(IndexFeatures(torch.full((1, 1, 64, 1, 1024), 127.0), keys))
    for backend in ("cpu", "reference"):
        assert not select(scorer, EVERYTHING, torch.ones(1, 1, 64).long(), backend=backend).positions.any()


@HERE
def test_the_kernels_score_by_the_integers_and_not_by_the_floats():
    scorer = cast(1, 8)._replace(queries=torch.zeros(2, 1, 300, 1, 8))
    limit = torch.full((2, 1, 300), 24)
    chosen = [select(scorer, EVERYTHING, limit, backend=backend).positions for backend in ("cpu", "reference")]
    assert torch.equal(*chosen)
    assert not torch.equal(chosen[0][0, 0, -1], torch.arange(24)), "all scores 0 would select the first keys"


def test_a_processor_that_does_not_multiply_integers_selects_by_the_floats(monkeypatch):
    monkeypatch.setattr("dsa.ops.native.pack.multiplies", lambda dtype: False)
    scorer, limit = cast(1, 8), torch.full((2, 1, 300), 24)
    chosen = [select(x, EVERYTHING, limit, backend="cpu") for x in (scorer, scorer._replace(integers=None))]
    assert torch.equal(chosen[0].positions, chosen[1].positions)


def test_scores_of_integers_are_those_of_the_features_but_for_rounding():
    scorer = cast(2, 16)
    whole = slice(0, 300), slice(0, 300)
    torch.testing.assert_close(scorer.scores(*whole), scorer._replace(integers=None).scores(*whole))


def test_a_loss_learns_the_features():
    scorer = cast(2, 16, time=32)
    queries = scorer.queries.detach().requires_grad_()
    attention = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = indexer_loss(scorer._replace(queries=queries), attention, None, backend="reference")
    assert torch.autograd.grad(loss, queries)[0].abs().sum() > 0


def test_a_number_that_is_none_is_told():
    scorer = cast(1, 8)
    keys = scorer.keys.clone()
    keys[0, 0, 5] = torch.nan
    broken = Integer(8, "row").cast(scorer._replace(keys=keys))
    for backend in ("cpu", "reference"):
        with pytest.raises(FloatingPointError, match="NaN"):
            select(broken, EVERYTHING, torch.full((2, 1, 300), 24), backend=backend)
