"""Nothing that an op answers for a query depends on later tokens, down to the last bit."""

import pytest
import torch

from contract.cases import BATCH, CAUSAL, SEEDS, attention, randoms
from dsa.ops import Hash, IndexFeatures, Recency, Zone, reference

LENGTH, CHANGE = 96, 41
RULES = {
    "causal": CAUSAL,
    "window": (Zone(5, keep="all"), Zone(None, 6)),
    "aligned": (Zone(15, align=8, keep=0.5),),
    "strided": (Zone(0, keep="all"), Zone(None, 3, 3, keep=0.5)),
    "sinks": (Zone(None, keep="all", end=4), Zone(2, keep="all", begin=4), Zone(None, 3, begin=4)),
}
TRIMS = {"none": None, "entropy": lambda rows: rows.entropy.exp().round().long() + rows.forced}


def tokens(seed, future):
    """Queries, keys, values and index features; those from CHANGE on of another seed."""
    shapes = (4, LENGTH, 8), (2, LENGTH, 8), (2, LENGTH, 8), (1, LENGTH, 2, 4), (1, LENGTH, 4)
    now, later = ([randoms(BATCH, *shape, seed=s + i) for i, shape in enumerate(shapes)] for s in (10 * seed, future))
    return [torch.cat([a[:, :, :CHANGE], b[:, :, CHANGE:]], 2) for a, b in zip(now, later, strict=True)]


def answers(backend, rule, trim, q, k, v, index_q, index_k, scorer=None, unit=1):
    features = IndexFeatures(index_q, index_k[:, :, : LENGTH // unit * unit], None, "none", "max", unit)
    ranks = features if scorer is None else scorer(q, k)
    selection = backend.select(ranks, RULES[rule], torch.full((BATCH, 1, LENGTH), 8), TRIMS[trim])
    out, target = backend.attend_with_target(q, k, v, selection, 1, torch.ones(4), scale=0.4)
    mask = reference.to_mask(selection, LENGTH)
    return [mask, out, target.logsumexp, backend.dense_logsumexp(q, k), backend.attend(q, k, v, selection)[0]]


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("trim", TRIMS)
def test_changing_later_tokens_changes_no_bit_of_what_comes_before(backend, rule, trim):
    changed = 0
    for seed in range(SEEDS):
        before, after = (answers(backend, rule, trim, *tokens(seed, future)) for future in (1000, 2000))
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a[:, :, :CHANGE], b[:, :, :CHANGE])
            changed += not torch.equal(a[:, :, CHANGE:], b[:, :, CHANGE:])
    assert changed == SEEDS * 5


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("kind", ["features", "attention", "hash", "recency"])
def test_changing_later_tokens_changes_no_bit_whatever_ranks_the_keys(backend, kind, unit):
    if unit > 1 and kind != "features":
        return
    scorer = {
        "features": None,
        "attention": lambda q, k: attention(q, k, None, 2),
        "hash": lambda q, k: Hash(3),
        "recency": lambda q, k: Recency(),
    }[kind]
    for seed in range(SEEDS // 2 or 1):
        before, after = (
            answers(backend, "causal", "none", *tokens(seed, future), scorer, unit) for future in (1000, 2000)
        )
        for a, b in zip(before, after, strict=True):
            assert torch.equal(a[:, :, :CHANGE], b[:, :, :CHANGE])
