"""A few queries after many keys, as decoding asks: what is selected and attended to is what the definition says."""

import pytest
import torch

from contract.cases import BATCH, CAUSAL, doubled, far, qkv, random_selection, randoms, wholes
from dsa.backbones import Cache
from dsa.ops import Hash, IndexFeatures, Recency, Zone, reference
from dsa.ops.native import arguments
from dsa.precision import Integer

LENGTH = 150
RULES = {
    "causal": CAUSAL,
    "window": (Zone(5, keep="all"), Zone(None, 6)),
    "two_zones": (Zone(60, keep=0.5), Zone(None, 61)),
    "strided": (Zone(0, keep="all"), Zone(None, 3, 3, keep=0.5)),
    "sinks": (Zone(None, keep="all", end=4), Zone(2, keep="all", begin=4), Zone(None, 3, begin=4)),
}


@pytest.fixture
def in_parts(monkeypatch):
    """Kernels on two threads, which share even short rows."""
    monkeypatch.setattr(arguments, "SHARED", 16)
    torch.set_num_threads(2)


def scorer_of(kind, time, unit=1):
    """In three groups of one row: so many do not keep two threads busy."""
    if kind in ("hash", "recency"):
        return Hash(5) if kind == "hash" else Recency()
    pool = "max" if kind == "max" else "entry"
    entries = LENGTH // unit * (unit if pool == "max" else 1)
    shapes = (1, 3, time, 2, 4), (1, 1, entries, 4), (1, 3, time, 2)
    features = IndexFeatures(*(wholes(*s) for s in shapes), unit=unit, pool=pool)
    return Integer(8, "row").cast(features) if kind == "integers" else features


def as_in_a_cache(scorer):
    """The same keys in memory that grew for two of them."""
    if not isinstance(scorer, IndexFeatures) or scorer.keys.shape[2] < 2:
        return scorer
    cache = Cache()
    for part in scorer.keys.tensor_split([1], 2):
        keys = cache.extend("index", 0, part, 2, side_by_side=True)
    return scorer._replace(keys=keys)


KINDS = [("features", 1), ("units", 4), ("max", 4), ("integers", 1), ("hash", 1), ("recency", 1)]


FIT = [(kind, unit, rule) for kind, unit in KINDS for rule in RULES if unit == 1 or rule != "strided"]


@pytest.mark.parametrize(("kind", "unit", "rule"), FIT)
def test_few_queries_select_what_the_definition_says(backend, in_parts, kind, unit, rule):
    for time, keep in ((1, 9), (3, 9), (1, 40)):
        scorer, offset = scorer_of(kind, time, unit), LENGTH - time
        limit = torch.full((1, 1, time), keep)
        wanted = reference.select(scorer, RULES[rule], limit, None, offset)
        got = backend.select(as_in_a_cache(scorer), RULES[rule], limit, None, offset)
        assert got.counts.equal(wanted.counts.to(got.counts.dtype))
        assert reference.to_mask(got, LENGTH).equal(reference.to_mask(wanted, LENGTH))


def test_a_score_that_is_no_number_is_found_in_any_part(backend, in_parts):
    scorer = scorer_of("features", 1)
    scorer.keys[0, 0, 70] = torch.nan
    with pytest.raises(FloatingPointError):
        backend.select(scorer, CAUSAL, torch.full((1, 1, 1), 9), None, LENGTH - 1)


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("dim", [8, 32, 20])
@pytest.mark.parametrize(("kv_heads", "groups", "sink"), [(4, 1, False), (2, 2, True), (1, 4, True)])
def test_few_queries_attend_as_the_definition_says(backend, in_parts, dim, time, kv_heads, groups, sink):
    q, k, v = qkv(BATCH, 4, time, LENGTH, dim, kv_heads=kv_heads)
    cache = Cache()
    with torch.no_grad():
        for part in (slice(0, 100), slice(100, LENGTH)):
            kept = [cache.extend(name, 0, x[:, :, part], 2) for name, x in (("key", k), ("value", v))]
    k, v = (x.requires_grad_() for x in kept)
    selection = random_selection(BATCH, groups, time, LENGTH, 30)
    sinks = randoms(4) if sink else None
    options = {"scale": 0.3}
    out, logsumexp = backend.attend(q, k, v, selection, sinks, **options)
    exact = [doubled(x) for x in (q, k, v)]
    wanted, wanted_lse = reference.attend(*exact, selection, sinks, **options)
    assert far(out, wanted) < 1e-6 and far(logsumexp.nan_to_num(neginf=0), wanted_lse.nan_to_num(neginf=0)) < 1e-6
    upstream = randoms(*out.shape, seed=1)
    grads = torch.autograd.grad((out * upstream).sum(), (q, k, v))
    for got, want in zip(grads, torch.autograd.grad((wanted * upstream).sum(), exact), strict=True):
        assert far(got, want, least=1) < 1e-4
