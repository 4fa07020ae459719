"""A pass over the later tokens with the earlier ones' keys gives what the whole pass gives there."""

import pytest
import torch

from contract.cases import CAUSAL, attention, far, qkv, randoms, wholes
from dsa import ops
from dsa.ops import Call, Hash, IndexFeatures, Recency, TrueAttention, Zone, reference
from dsa.ops.dispatch import serving

LENGTH, HALF = 50, 31
RULES = {
    "causal": CAUSAL,
    "window": (Zone(5, keep="all"), Zone(None, 6)),
    "aligned": (Zone(15, align=8, keep=0.5),),
    "strided": (Zone(0, keep="all"), Zone(None, 3, 3, keep=0.5)),
    "sinks": (Zone(None, keep="all", end=4), Zone(2, keep="all", begin=4), Zone(None, 3, begin=4)),
}


def scorer_of(kind):
    if kind in ("hash", "recency"):
        return Hash(5) if kind == "hash" else Recency()
    if kind == "attention":
        q, k, _ = (x.detach() for x in qkv(2, 4, LENGTH, LENGTH, 8, kv_heads=2))
        return attention(q, k, None, 2)
    unit = 4 if kind == "units" else 1
    forced = (Zone(2, align=4, keep="all"),) if kind == "units" else ()
    shapes = (2, 2, LENGTH, 2, 4), (2, 1, LENGTH // unit, 4), (2, 2, LENGTH, 2)
    return IndexFeatures(*(wholes(*s) for s in shapes), unit=unit, forced=forced)


def later(x):
    """The scorer of the later queries alone."""
    if isinstance(x, TrueAttention):
        return x._replace(queries=x.queries[:, :, HALF:], logsumexp=x.logsumexp[:, :, HALF:])
    if isinstance(x, IndexFeatures):
        return x._replace(queries=x.queries[:, :, HALF:], weights=x.weights[:, :, HALF:])
    return x


KINDS = "features", "units", "attention", "hash", "recency"
FIT = [(kind, rule) for kind in KINDS for rule in RULES if (kind, rule) != ("units", "strided")]


@pytest.mark.parametrize(("kind", "rule"), FIT)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("trims", [False, True])
def test_later_queries_select_what_they_select_in_the_whole(backend, kind, rule, padded, trims):
    scorer, first = scorer_of(kind), torch.tensor([0, 12]) if padded else None
    limit = torch.full((2, 1, LENGTH), 9)
    trim = (lambda rows: rows.forced + 5) if trims else None
    whole = backend.select(scorer, RULES[rule], limit, trim, 0, first)
    part = backend.select(later(scorer), RULES[rule], limit[..., HALF:], trim, HALF, first)
    assert torch.equal(part.counts, whole.counts[:, :, HALF:])
    masks = (reference.to_mask(x, LENGTH) for x in (part, whole))
    assert torch.equal(next(masks), next(masks)[:, :, HALF:])


def test_later_queries_attend_as_in_the_whole(backend):
    q, k, v = (x.detach() for x in qkv(2, 4, LENGTH, LENGTH, 8, kv_heads=2))
    sink = randoms(4)
    selection = reference.select(Hash(1), CAUSAL, torch.full((2, 1, LENGTH), 9))
    cut = ops.Selection(selection.positions[:, :, HALF:], selection.counts[:, :, HALF:])
    whole, target = backend.attend_with_target(q, k, v, selection, 1, sink, scale=0.3)
    part, late = backend.attend_with_target(q[:, :, HALF:], k, v, cut, 1, sink, scale=0.3)
    assert far(part, whole[:, :, HALF:]) < 1e-6
    assert far(late.logsumexp, target.logsumexp[:, :, HALF:]) < 1e-6
    dense, tail = (backend.dense_logsumexp(x, k, sink, scale=0.3) for x in (q, q[:, :, HALF:]))
    assert far(tail, dense[:, :, HALF:]) < 1e-6


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("selected", [False, True])
def test_the_loss_of_the_whole_is_the_mean_of_the_earlier_and_the_later(backend, unit, selected):
    q, k, _ = (x.detach() for x in qkv(2, 4, LENGTH, LENGTH, 8, kv_heads=2))
    features = IndexFeatures(randoms(2, 1, LENGTH, 2, 4), randoms(2, 1, LENGTH // unit, 4), unit=unit)
    backend = serving(backend.name, Call((q,), learner=features))
    limit = torch.full((2, 1, LENGTH), 12)
    losses, rows = [], []
    for begin, end in ((0, LENGTH), (0, HALF), (HALF, LENGTH)):
        own = features._replace(queries=features.queries[:, :, begin:end], keys=features.keys[:, :, : end // unit])
        queries, keys = q[:, :, begin:end], k[:, :, :end]
        chosen = reference.select(own, CAUSAL, limit[..., begin:end], None, begin) if selected else None
        losses.append(backend.indexer_loss(own, attention(queries, keys, chosen), chosen))
        rows.append(reference.scope_of(own, chosen, end - begin, end).any(-1).sum())
    torch.testing.assert_close(losses[0] * rows[0], losses[1] * rows[1] + losses[2] * rows[2])


def test_a_scorer_without_these_queries_or_keys_is_refused():
    features = IndexFeatures(wholes(1, 1, 9, 2, 4), wholes(1, 1, 20, 4))
    ops.select(features, CAUSAL, torch.full((1, 1, 9), 4), offset=11)
    with pytest.raises(ValueError, match=r"the queries 12 to 20 .* 21 units .* units \(1, 9, 20\)"):
        ops.select(features, CAUSAL, torch.full((1, 1, 9), 4), offset=12)
    with pytest.raises(ValueError, match=r"the queries 0 to 7 "):
        ops.select(features, CAUSAL, torch.full((1, 1, 8), 4))
