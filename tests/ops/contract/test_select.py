"""Selections are those of the definition in float64: exactly for whole numbers, else within 1e-6 of the last kept."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from contract.cases import CAUSAL, attention, doubled, examples, qkv, randoms, same, wholes
from dsa import ops
from dsa.ops import Band, Call, Hash, IndexFeatures, Recency, TrueAttention, Zone, reference
from dsa.ops.dispatch import serving

WINDOW = (Zone(6, keep="all"),)
SINKS = (Zone(None, keep="all", end=4), Zone(2, keep="all", begin=4), Zone(None, 3, begin=4))
zones = st.one_of(
    st.builds(
        lambda window, last, step, keep: (
            Zone(window - 1, 0, keep="all"),
            Zone(None, window + last, step, keep=keep),
        ),
        st.integers(1, 20), st.integers(0, 9), st.integers(1, 5), st.sampled_from(["selector", 3, 0.4]),
    ),
    st.builds(
        lambda a, b, align: (Zone(a, 0, align=align, keep=5), Zone(a + b, a + 1, keep=0.3), Zone(None, a + b + 1)),
        st.integers(0, 30), st.integers(1, 40), st.sampled_from([1, 4]),
    ),
    st.builds(lambda step: (Zone(0, keep="all"), Zone(None, 1, step)), st.integers(1, 70)),
    st.just(CAUSAL),
    st.just((Zone(9, keep="all"),)),
    st.builds(
        lambda sinks, window, step: (
            Zone(None, keep="all", end=sinks), Zone(window, keep="all", begin=sinks),
            Zone(None, window + 1, step, begin=sinks),
        ),
        st.integers(1, 20), st.integers(0, 20), st.integers(1, 5),
    ),
)  # fmt: skip


@st.composite
def cases(draw, kinds=("features", "features", "units", "max", "attention", "real", "hash", "recency")):
    """A scorer, zones, limits, offset and padding."""
    batch, time, offset = draw(st.integers(1, 2)), draw(st.integers(1, 140)), draw(st.sampled_from([0, 0, 5, 33]))
    groups, limit_groups = draw(st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1), (1, 2), (1, 3)]))
    keys, seed = offset + time, draw(st.integers(0, 99))
    kind = draw(st.sampled_from(kinds))
    rule = draw(zones)
    unit = draw(st.sampled_from([2, 5, 16])) if kind in ("units", "max") else 1
    if unit > 1:
        rule = tuple(replace(z, begin=z.begin * unit) for z in rule if z.step == 1) or CAUSAL
    if kind == "attention":
        q, k, _ = qkv(batch, 4, time, keys, 8, seed, draw(st.sampled_from([4, 2, 1])))
        scale, cap = draw(st.sampled_from([None, 0.6])), draw(st.sampled_from([None, 0.7]))
        scorer = attention(q, k, None, groups, scale=scale, cap=cap)
    elif kind in ("hash", "recency"):
        scorer = Hash(seed, 1, 2) if kind == "hash" else Recency(draw(st.sampled_from([0, 1, 4])))
    else:
        make = draw(st.sampled_from([wholes, wholes, lambda *s, seed: torch.zeros(*s)]))
        make = randoms if kind == "real" else make
        scorer = IndexFeatures(
            make(batch, groups, time, 2, 4, seed=seed),
            make(batch, draw(st.sampled_from([1, groups])), keys if kind != "units" else keys // unit, 4, seed=seed),
            draw(st.sampled_from([None, wholes(batch, groups, time, 2, seed=seed + 2)])),
            draw(st.sampled_from(["relu", "none"])),
            "max" if kind == "max" else "entry",
            unit,
            forced=draw(
                st.sampled_from([(), (), (Zone(unit - 2 if unit > 1 else 0, align=unit, keep="all"),), WINDOW])
            ),
        )
    limit = torch.full((batch, limit_groups, time), draw(st.sampled_from([0, 1, 7, 40, 1000])))
    if draw(st.booleans()):
        limit = (torch.arange(limit.numel()).view_as(limit) * 7) % 50
    first = draw(st.sampled_from([None, torch.arange(batch) * min(11, keys) // unit * unit]))
    return scorer, rule, limit, offset, first


def whole_scores(scorer):
    return not isinstance(scorer, TrueAttention) and not (
        isinstance(scorer, IndexFeatures) and bool((scorer.queries % 1).any())
    )


def assert_selected(got, wanted, scorer, offset):
    """As many keys for each query; those that differ have scores that hardly do."""
    assert torch.equal(got.counts, wanted.counts)
    time = got.positions.shape[2]
    scores = doubled(scorer).scores(slice(0, time), slice(0, offset + time), offset)
    mine, theirs = (reference.to_mask(x, offset + time) for x in (got, wanted))
    only_mine, only_theirs = (
        torch.where(x, scores, math.inf).sort(-1).values for x in (mine & ~theirs, theirs & ~mine)
    )
    torch.testing.assert_close(only_mine, only_theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@given(case=cases())
@examples
def test_the_same_keys_are_selected_as_by_the_definition(backend, case):
    scorer, rule, limit, offset, first = case
    assume(backend.covers(Call(scorer=scorer)) is None)
    got = backend.select(scorer, rule, limit, None, offset, first)
    wanted = reference.select(doubled(scorer), rule, limit, None, offset, first)
    if whole_scores(scorer):
        assert same(got, wanted)
    else:
        assert_selected(got, wanted, scorer, offset)


@pytest.mark.parametrize("trims", [False, True])
def test_a_selection_has_the_slots_that_it_is_given(backend, trims):
    scorer = IndexFeatures(wholes(2, 1, 40, 2, 4, seed=0), wholes(2, 1, 40, 4, seed=1))
    zones, limit = (Zone(3, keep="all"), Zone(None)), torch.full((2, 1, 40), 9)
    trim = (lambda rows: rows.forced + 2) if trims else None
    fewest, more = (backend.select(scorer, zones, limit, trim, slots=slots) for slots in (None, 14))
    assert more.positions.shape[-1] == 14 and (more.positions[..., 9:] == -1).all()
    assert torch.equal(more.counts, fewest.counts)
    width = fewest.positions.shape[-1]
    assert torch.equal(more.positions[..., :width], fewest.positions) and (more.positions[..., width:] == -1).all()


def test_too_few_slots_are_refused(backend):
    scorer = IndexFeatures(wholes(1, 1, 40, 2, 4, seed=0), wholes(1, 1, 40, 4, seed=1))
    with pytest.raises(ValueError, match="slots = 8, but a query keeps 9 keys"):
        backend.select(scorer, (Zone(None),), torch.full((1, 1, 40), 9), slots=8)


@pytest.mark.slow
@given(case=cases())
@examples
def test_a_trim_rule_sees_and_drops_what_the_definition_says(backend, case):
    scorer, rule, limit, offset, first = case
    assume(backend.covers(Call(scorer=scorer)) is None)
    if isinstance(scorer, Hash) or getattr(scorer, "sinks", 0):
        return  # ranks too large for a sum of exponentials
    seen = []

    def trim(rows):
        seen.append(rows)
        return (rows.entropy * 3 + 0.371).floor().long() + rows.forced // 2

    got = backend.select(scorer, rule, limit, trim, offset, first)
    mine = [
        torch.cat([getattr(rows, name) for rows in seen], 2) for name in ("logsumexp", "forced_logsumexp", "entropy")
    ]
    kept = [rows.scores for rows in seen]
    seen.clear()
    wanted = reference.select(doubled(scorer), rule, limit, trim, offset, first)
    (theirs,) = seen
    shape = got.counts.shape
    for a, name in zip(mine, ("logsumexp", "forced_logsumexp", "entropy"), strict=True):
        b = getattr(theirs, name).double().expand(shape)
        torch.testing.assert_close(a.double().expand(shape), b, rtol=1e-5, atol=1e-4)
    slots = max(x.shape[-1] for x in [*kept, theirs.scores])
    padded = [torch.nn.functional.pad(x, (0, slots - x.shape[-1]), value=-math.inf) for x in [*kept, theirs.scores]]
    a, b = torch.cat(padded[:-1], 2), padded[-1]
    torch.testing.assert_close(a.double().expand(*shape, -1), b.double().expand(*shape, -1), rtol=1e-5, atol=1e-5)
    agree = (got.counts == wanted.counts).float().mean()
    assert agree > 0.97  # an entropy next to a step may round either way


@pytest.mark.parametrize("kind", ["features", "attention", "recency"])
def test_zones_and_limits_may_differ_from_group_to_group(backend, kind):
    q, k, _ = (x.detach() for x in qkv(2, 4, 50, 50, 8, kv_heads=2))
    for groups in (1, 2):
        scorer = {
            "features": IndexFeatures(wholes(2, groups, 50, 2, 4), wholes(2, 1, 50, 4)),
            "attention": attention(q, k, None, groups),
            "recency": Recency(),
        }[kind]
        each = ((Zone(None),), (Zone(3, keep="all"), Zone(None, 4, 3)))
        limit = torch.stack([torch.full((2, 50), 5), torch.arange(50).expand(2, 50) % 20], 1)
        whole = ops.select(scorer, each, limit, backend=backend.name)
        for g in range(2):
            one = scorer
            if kind == "features" and groups > 1:
                one = scorer._replace(queries=scorer.queries[:, g : g + 1])
            if kind == "attention" and groups > 1:
                heads = slice(2 * g, 2 * g + 2)
                one = TrueAttention(q[:, heads], k[:, g : g + 1], scorer.logsumexp[:, heads])
            wanted = reference.select(one, each[g], limit[:, g : g + 1])
            mine = [x[:, g : g + 1] for x in (reference.to_mask(whole, 50), whole.counts)]
            assert torch.equal(mine[0], reference.to_mask(wanted, 50))
            assert torch.equal(mine[1], wanted.counts)


def test_heads_that_score_some_distances_alone_select_what_the_definition_says(backend):
    bands = Band(1, 4, 0, last=5), Band(1, 4, 1, first=6)
    scorer = IndexFeatures(wholes(1, 1, 40, 2, 4), wholes(1, 2, 40, 4), wholes(1, 1, 40, 2), bands=bands)
    limit = torch.full((1, 1, 40), 7)
    got = serving(backend.name, Call(device=limit.device, scorer=scorer)).select(scorer, CAUSAL, limit)
    assert same(got, reference.select(scorer, CAUSAL, limit))


def test_few_zones_serve_many_groups_in_a_row_and_few_groups_of_scores_many_zones(backend):
    q, k, _ = (x.detach() for x in qkv(2, 4, 50, 50, 8, kv_heads=4))
    few, many, limit = attention(q, k, None, 2), attention(q, k, None, 4), torch.full((2, 2, 50), 5)
    limit[:, 1] = 9
    pair = ((Zone(None),), (Zone(3, keep="all"), Zone(None, 4, 3)))
    each = (pair[0], pair[0], pair[1], pair[1])
    for scorer, zones in ((many, pair), (few, each), (many, (Zone(None),))):
        whole = ops.select(scorer, zones, limit, backend=backend.name)
        assert whole.counts.shape == (2, 4, 50)
        for g in range(4):
            mine = ops.select(
                scorer.of_group(g * scorer.groups // 4), each[g] if zones[0] != Zone(None) else zones,
                limit[:, g // 2 : g // 2 + 1], backend=backend.name,
            )  # fmt: skip
            assert torch.equal(reference.to_mask(whole, 50)[:, g], reference.to_mask(mine, 50)[:, 0])


@pytest.mark.usefixtures("untyped")
def test_numbers_of_groups_that_do_not_fit_are_refused():
    features = IndexFeatures(wholes(1, 2, 9, 2, 4), wholes(1, 1, 9, 4))
    with pytest.raises(ValueError, match="zones for 1 groups, limits for 3, a scorer of 2"):
        ops.select(features, CAUSAL, torch.full((1, 3, 9), 4))
    with pytest.raises(ValueError, match=r"limit has shape \(1, 9\)"):
        ops.select(features, CAUSAL, torch.full((1, 9), 4))


def spelled_out(scorer, rule, t):
    """Keys that are forced and keys that compete for the query at t, as sets, from the words of the contract."""
    fence = min((t - zone.first) // zone.align * zone.align + (0 if (t - zone.first) % zone.align == 0 else zone.align)
                for zone in scorer.forced) if scorer.forced else t + 1  # fmt: skip
    fence = max(fence, 0)
    forced, competing = set(range(fence, t + 1)), set()
    for zone in rule:
        start, count = zone.span(torch.tensor(t))
        keys = {int(start) + i * zone.step for i in range(int(count))} - forced
        if zone.forced:
            forced |= keys
            continue
        units = {key // scorer.unit for key in keys}
        whole = {unit for unit in units if all(unit * scorer.unit + i in keys for i in range(scorer.unit))}
        inside = {unit * scorer.unit + i for unit in whole for i in range(scorer.unit)}
        competing |= inside
        forced |= {key for key in keys - inside if key >= (max(inside, default=-1) if scorer.unit > 1 else t + 1)}
    return forced, competing


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("forced", [(), (Zone(2, align=4, keep="all"),), (Zone(5, keep="all"),)])
@pytest.mark.parametrize("rule", [CAUSAL, (Zone(7, keep="all"), Zone(None, 8)), (Zone(15, align=8, keep=0.5),), SINKS])
def test_forced_keys_are_kept_once_and_only_whole_units_compete(backend, unit, forced, rule):
    scorer = IndexFeatures(wholes(1, 1, 40, 2, 4), wholes(1, 1, 40 // unit, 4), unit=unit, forced=forced)
    wanted = [spelled_out(scorer, rule, t) for t in range(40)]
    for limit in (3, 13, 1000):
        got = backend.select(scorer, rule, torch.full((1, 1, 40), limit))
        for t, (must, may) in enumerate(wanted):
            chosen = {key for key in got.positions[0, 0, t].tolist() if key >= 0}
            assert chosen <= must | may
            assert len(chosen) == int(got.counts[0, 0, t]) <= limit
            assert must <= chosen or len(chosen & must) == limit
            if limit == 1000:
                assert chosen == must | may
            kept = {key // unit for key in chosen & may}
            assert all(unit_ * unit + i in chosen for unit_ in kept for i in range(unit))
            assert min(limit, len(must | may)) - len(chosen) < unit


def test_an_indexer_that_forces_keys_with_gaps_is_refused(backend):
    for zone in (
        Zone(5, 1, keep="all"), Zone(6, step=2, keep="all"), Zone(6, keep=3), Zone(None, keep="all", end=4),
    ):  # fmt: skip
        scorer = IndexFeatures(wholes(1, 1, 9, 1, 4), wholes(1, 1, 9, 4), forced=(zone,))
        with pytest.raises(ValueError, match="an indexer forces whole windows"):
            backend.select(scorer, CAUSAL, torch.full((1, 1, 9), 3))


def test_a_trim_rule_keeps_whole_units(backend):
    scorer = IndexFeatures(wholes(1, 1, 30, 2, 4), wholes(1, 1, 7, 4), unit=4)
    got = backend.select(scorer, CAUSAL, torch.full((1, 1, 30), 20), lambda rows: rows.forced + 5)
    for t in range(30):
        whole = int(got.counts[0, 0, t]) - (t + 1) % 4
        assert whole == min(8, (t + 1) // 4 * 4)


@pytest.mark.parametrize(("heads", "dim", "signed"), [(1, 8, True), (2, 4, False)])
def test_long_rows_whose_threshold_is_estimated_select_the_best(backend, heads, dim, signed):
    length = 9000
    weights = randoms(1, 1, 64, heads)
    features = IndexFeatures(
        randoms(1, 1, 64, heads, dim), randoms(1, 1, length, dim), weights if signed else weights.abs()
    )
    got = backend.select(features, CAUSAL, torch.full((1, 1, 64), 100), offset=length - 64)
    scores = features.scores(slice(0, 64), slice(0, length)).double()
    visible = torch.arange(length) <= torch.arange(length - 64, length)[:, None]
    best = torch.where(visible, scores, -math.inf).topk(100).values
    mine = scores.gather(-1, got.positions.long()).sort(descending=True).values
    torch.testing.assert_close(mine, best, rtol=1e-6, atol=1e-6)
    assert bool((got.positions.diff() > 0).all())


@pytest.mark.parametrize("order", ["rising", "falling", "two values", "a spike between samples"])
def test_rows_that_mislead_the_estimate_are_selected_exactly(backend, order):
    length, k = 9000, 64
    step = torch.arange(length).float()
    keys = {
        "rising": step,
        "falling": -step,
        "two values": (step % 2),
        "a spike between samples": torch.where((step > 4000) & (step < 4040), 5.0, -(step % 7)),
    }[order]
    features = IndexFeatures(
        torch.ones(1, 1, 40, 2, 4), keys[None, None, :, None].expand(1, 1, length, 4), None, "none"
    )
    limit = torch.full((1, 1, 40), k)
    got = backend.select(features, CAUSAL, limit, offset=length - 40)
    wanted = keys[: length - 40 + 1].sort(descending=True, stable=True).indices[:k].sort().values
    assert torch.equal(got.positions[0, 0, 0].long(), wanted)
    assert same(got, reference.select(features, CAUSAL, limit, offset=length - 40))
