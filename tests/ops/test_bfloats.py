"""Index scores in bfloat16: the kernels select the keys of the definition, but for what its rounding leaves open."""

import pytest
import torch

from dsa.ops import IndexFeatures, Zone, select
from dsa.ops.native import multiplies
from dsa.precision import ByPart

pytestmark = pytest.mark.skipif(not multiplies(torch.bfloat16), reason="this processor does not multiply bfloat16")
EVERYTHING = (Zone(first=None),)
STRIDED = (Zone(first=0, keep="all"), Zone(first=None, last=3, step=3))
STEP = 2.0**-7  # between neighbours of the format, at most so much of a number


def cast(heads, dim, accumulate="bfloat16", time=300, groups=1, weighted=True, **settings):
    draw = torch.Generator().manual_seed(heads * 100 + dim)
    queries = torch.randn(2, groups, time, heads, dim, generator=draw)
    keys = torch.randn(2, 1, time, dim, generator=draw)
    weights = torch.rand(2, groups, time, heads, generator=draw) if weighted else None
    held = "bfloat16"
    return ByPart(held, held, held, accumulate).cast(IndexFeatures(queries, keys, weights, **settings))


SCORERS = {
    "one head": cast(1, 8),
    "four heads": cast(4, 64),
    "an odd number of dims": cast(3, 9),
    "one dim": cast(1, 1),
    "two groups": cast(2, 16, groups=2),
    "no weights": cast(1, 8, weighted=False),
    "no activation": cast(2, 16, activation="none"),
    "sums in float32": cast(4, 64, "float32"),
}


def kept_scores(scorer, zones, backend):
    """Scores, by the definition, of what a backend keeps, best first."""
    limit = torch.full((2, scorer.groups, scorer.queries.shape[2]), 24)
    chosen = select(scorer, zones, limit, backend=backend)
    whole = slice(0, scorer.queries.shape[2])
    found = scorer.scores(whole, whole).gather(-1, chosen.positions.long().clamp(min=0))
    slots = torch.arange(found.shape[-1])
    return found.masked_fill(slots >= chosen.counts[..., None], 0.0).sort(-1, descending=True).values


@pytest.mark.parametrize("zones", [EVERYTHING, STRIDED], ids=["every key", "every third"])
@pytest.mark.parametrize("name", SCORERS)
def test_the_kernels_keep_keys_of_the_same_scores_as_the_definition(name, zones):
    scorer = SCORERS[name]
    mine, defined = (kept_scores(scorer, zones, backend) for backend in ("cpu", "reference"))
    exact = scorer.accumulate == torch.float32
    torch.testing.assert_close(mine, defined, rtol=1e-5 if exact else 2 * STEP, atol=1e-5 if exact else 0.05)
    assert (mine == defined).float().mean() > 0.99, "sums in another order end on the other side now and then"


@pytest.mark.parametrize("pool", ["entry", "max"])
def test_units_of_several_tokens_are_selected_alike(pool):
    scorer = cast(1, 8, time=304)
    entries = scorer.keys[:, :, ::4] if pool == "entry" else scorer.keys
    scorer = scorer._replace(keys=entries, unit=4, pool=pool)
    limit = torch.full((2, 1, 304), 24)
    mine, defined = (select(scorer, EVERYTHING, limit, backend=backend).positions for backend in ("cpu", "reference"))
    assert (mine == defined).float().mean() > 0.99


def test_every_part_is_rounded_to_the_format():
    """Scores that differ by less than the format tells apart are equal to it, and the first key wins."""
    keys = torch.tensor([[1.0, 0.0], [1.0, 2.0**-9]] * 32)[None, None]
    queries = torch.ones(1, 1, 64, 1, 2)
    first, one = torch.arange(64), torch.ones(1, 1, 64).long()
    for accumulate, best in (("bfloat16", torch.zeros(64)), ("float32", (first > 0).float())):
        scorer = ByPart("bfloat16", "bfloat16", "bfloat16", accumulate).cast(IndexFeatures(queries, keys))
        assert torch.equal(select(scorer, EVERYTHING, one, backend="cpu").positions[0, 0, :, 0].float(), best)


def test_a_number_that_is_none_is_told():
    scorer = cast(1, 8)
    keys = scorer.keys.clone()
    keys[0, 0, 5] = torch.nan
    for backend in ("cpu", "reference"):
        with pytest.raises(FloatingPointError, match="NaN"):
            select(scorer._replace(keys=keys), EVERYTHING, torch.full((2, 1, 300), 24), backend=backend)
