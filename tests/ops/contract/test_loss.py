"""The indexer loss and its gradients are those of the definition in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.cases import CAUSAL, attention, doubled, examples, far, qkv, random_selection, randoms, served
from dsa.ops import Call, IndexFeatures, Zone, reference
from dsa.ops.dispatch import serving

GROUPS = [  # of features, their keys, selection, target
    (1, 1, 1, 1), (2, 1, 2, 2), (2, 2, 1, 2), (4, 1, 4, 4), (4, 2, 4, 1), (1, 1, 2, 2), (1, 1, 4, 1), (1, 1, 1, 2),
]  # fmt: skip


def in_units(selection, keys, unit):
    """The selection with a random part of it as whole units."""
    mask = reference.to_mask(selection, keys)
    whole = mask.clone()
    for first in range(0, keys - unit + 1, 2 * unit):
        whole[..., first : first + unit] = mask[..., first : first + 1]
    return reference.from_mask(whole)


@pytest.mark.slow
@given(
    batch=st.integers(1, 2), time=st.integers(1, 90), most=st.sampled_from([0, 1, 7, 200]),
    groups=st.sampled_from(GROUPS), kv_heads=st.sampled_from([4, 2, 1]),
    relu=st.booleans(), weighted=st.booleans(), explicit=st.booleans(), dense=st.booleans(),
    scale=st.sampled_from([None, 0.7]), cap=st.sampled_from([None, 0.7]), sink=st.booleans(),
    unit=st.sampled_from([1, 1, 2, 5]), pool=st.booleans(),
    forced=st.sampled_from([(), (), (Zone(4, keep="all"),), (Zone(3, align=5, keep="all"),)]), seed=st.integers(0, 99),
)  # fmt: skip
@examples
def test_the_indexer_loss_and_its_gradients_are_those_of_the_definition(
    backend,
    batch,
    time,
    most,
    groups,
    kv_heads,
    relu,
    weighted,
    explicit,
    dense,
    scale,
    cap,
    sink,
    unit,
    pool,
    forced,
    seed,
):
    (groups, key_groups, chosen_groups, target_groups), keys = groups, time + 7
    q, k, _ = qkv(batch, 4, time, keys, 8, seed, kv_heads)
    selection = None if dense else random_selection(batch, chosen_groups, time, keys, most, seed)
    if unit > 1 and not dense:
        selection = in_units(selection, keys, unit)
    entries = keys if pool else keys // unit
    features = IndexFeatures(
        randoms(batch, groups, time, 2, 4, seed=seed).requires_grad_(),
        randoms(batch, key_groups, entries, 4, seed=seed + 1).requires_grad_(),
        randoms(batch, groups, time, 2, seed=seed + 2).requires_grad_() if weighted else None,
        "relu" if relu else "none",
        "max" if pool else "entry",
        unit,
        forced=forced,
    )
    backend = serving(backend.name, Call((q,), learner=features, dense=selection is None))
    if explicit:
        target = randoms(batch, target_groups, time, keys, seed=seed).clamp(min=0)
    else:
        over = selection if target_groups >= chosen_groups else None  # heads of one target attend to the same keys
        sinks, cap = randoms(4) if sink else None, served(backend, cap)
        target = attention(q, k, over, target_groups, scale=scale, cap=cap, sink=sinks)
    loss = backend.indexer_loss(features, target, selection)
    grads = torch.autograd.grad(loss * 3, [x for x in features[:3] if x is not None])
    exact = doubled(features)
    wanted = reference.indexer_loss(exact, doubled(target), selection)
    wanted_grads = torch.autograd.grad(wanted * 3, [x for x in exact[:3] if x is not None])
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    for got, want in zip(grads, wanted_grads, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4 * max(want.abs().max().item(), 1e-3))


def test_a_target_with_a_sink_is_normalised_over_the_keys(backend):
    q, k, v = (x.detach() for x in qkv(1, 4, 30, 30, 8, kv_heads=2))
    features = IndexFeatures(randoms(1, 1, 30, 2, 4), randoms(1, 1, 30, 4))
    selection = random_selection(1, 1, 30, 30, 9)
    one = torch.zeros(4)  # of one head: its sink weighs its keys against those of the others
    plain, sunk = (
        backend.indexer_loss(features, backend.attend_with_target(q, k, v, selection, 1, sink)[1], selection)
        for sink in (None, one)
    )
    wanted = reference.indexer_loss(doubled(features), doubled(attention(q, k, selection, sink=one)), selection)
    torch.testing.assert_close(sunk.double(), wanted, rtol=1e-5, atol=1e-6)
    assert (sunk - plain).abs() > 1e-4


def test_the_loss_over_units_is_spelled_out_in_sums(backend):
    """Row by row in Python: which units are in scope, their mass and their KL."""
    unit, keys, time = 3, 20, 14
    q, k, _ = (x.detach() for x in qkv(1, 2, time, keys, 8))
    features = IndexFeatures(randoms(1, 1, time, 2, 4), randoms(1, 1, 6, 4), unit=unit, forced=(Zone(4, keep="all"),))
    target = attention(q, k)
    backend = serving(backend.name, Call((q,), learner=features))
    p = target.scores(slice(0, time), slice(0, keys))[0, 0].double()
    index = features.scores(slice(0, time), slice(0, 6))[0, 0].double()
    for selection in (None, in_units(random_selection(1, 1, time, keys, 20, 1), keys, unit)):
        chosen = reference.causal(time, keys) if selection is None else reference.to_mask(selection, keys)[0, 0]
        losses = []
        for t in range(time):
            window = keys - time + t - 4  # the first key that is forced
            scope = [
                u for u in range(6)
                if all(bool(chosen[t, s]) and s < window for s in range(u * unit, (u + 1) * unit))
            ]  # fmt: skip
            if not scope:
                continue
            mass = torch.stack([p[t, u * unit : (u + 1) * unit].sum() for u in scope])
            share = mass / mass.sum()
            losses.append((share * (share.log() - index[t, scope].log_softmax(0))).sum())
        wanted = torch.stack(losses).mean()
        torch.testing.assert_close(
            backend.indexer_loss(features, target, selection).double(), wanted, rtol=1e-5, atol=1e-6
        )


def test_one_scorer_for_several_selections_learns_from_each(backend):
    """Its loss is the mean of those of the groups, each against the heads of its own."""
    q, k, _ = (x.detach() for x in qkv(1, 4, 30, 30, 8, kv_heads=2))
    features = IndexFeatures(randoms(1, 1, 30, 2, 4).requires_grad_(), randoms(1, 1, 30, 4))
    limit = torch.stack([torch.full((1, 30), 3), torch.full((1, 30), 11)], 1)
    selection = backend.select(features, CAUSAL, limit)
    loss = backend.indexer_loss(features, attention(q, k, selection, 2), selection)
    parts = []
    for g in range(2):
        heads, one = slice(2 * g, 2 * g + 2), type(selection)(*(x[:, g : g + 1] for x in selection))
        parts.append(backend.indexer_loss(features, attention(q[:, heads], k[:, g : g + 1], one), one))
    torch.testing.assert_close(loss, sum(parts) / 2)
    both = [torch.autograd.grad(x, features.queries)[0] for x in (loss, sum(parts) / 2)]
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-7)


def test_several_learn_over_several_blocks_what_each_learns_alone_and_what_the_definition_says(backend):
    q, k, _ = (x.detach() for x in qkv(2, 4, 70, 75, 8, kv_heads=2))
    target, cohort = attention(q, k, None, 1, scale=0.7), []
    for groups, keygroups, heads, unit in ((2, 2, 3, 1), (1, 1, 1, 3)):
        shapes = (2, groups, 70, heads, 4), (2, keygroups, 75 // unit, 4), (2, groups, 70, heads)
        own = IndexFeatures(*(randoms(*shape, seed=unit).requires_grad_() for shape in shapes), unit=unit)
        cohort += [own] if backend.covers(Call((q,), learner=own, dense=True)) is None else []
    for own, loss in zip(cohort, backend.indexer_losses(cohort, target), strict=True):
        exact = doubled(own)
        losses = loss, backend.indexer_loss(own, target, None), reference.indexer_loss(exact, doubled(target), None)
        grads = [
            torch.autograd.grad(x, y[:3], retain_graph=True) for x, y in zip(losses, (own, own, exact), strict=True)
        ]
        for together, alone, wanted in zip(*((x, *y) for x, y in zip(losses, grads, strict=True)), strict=True):
            assert torch.equal(together, alone)
            torch.testing.assert_close(alone.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_losses_of_half_precision_are_near_those_of_the_same_numbers_in_double(backend, dense):
    q, k, _ = (x.detach().bfloat16() for x in qkv(1, 4, 30, 30, 8, kv_heads=2))
    shapes = (1, 1, 30, 2, 4), (1, 1, 30, 4), (1, 1, 30, 2)
    features = IndexFeatures(*(randoms(*shape).bfloat16().requires_grad_() for shape in shapes))
    selection = None if dense else random_selection(1, 1, 30, 30, 9)
    target, exact = attention(q.float(), k.float(), selection), doubled(features)
    loss = backend.indexer_loss(features, target._replace(queries=q, keys=k), selection)
    wanted = reference.indexer_loss(exact, doubled(target), selection)
    torch.testing.assert_close(loss.double(), wanted, rtol=2e-2, atol=2e-2)
    for got, want in zip(*(torch.autograd.grad(*x) for x in ((loss, features[:3]), (wanted, exact[:3]))), strict=True):
        assert got.dtype == torch.bfloat16
        assert far(got, want) < 5e-2


@pytest.mark.parametrize("dense", [False, True])
def test_what_bfloat16_holds_is_scored_and_learned_as_the_same_numbers_in_single(backend, dense):
    q, k, _ = (x.detach() for x in qkv(1, 4, 30, 30, 8, kv_heads=2))
    single = [randoms(*shape).bfloat16().float() for shape in ((1, 1, 30, 2, 4), (1, 1, 30, 4), (1, 1, 30, 2))]
    features = IndexFeatures(*(x.requires_grad_() for x in single), held=torch.bfloat16)
    selection = None if dense else random_selection(1, 1, 30, 30, 9)
    target, exact = attention(q, k, selection), doubled(features)
    loss = backend.indexer_loss(features, target, selection)
    wanted = reference.indexer_loss(exact, doubled(target), selection)
    assert far(loss, wanted) < 1e-5
    for got, want in zip(*(torch.autograd.grad(*x) for x in ((loss, features[:3]), (wanted, exact[:3]))), strict=True):
        assert got.dtype == torch.float32
        assert far(got, want) < 1e-4


def test_groups_that_do_not_fit_are_refused(backend):
    q, k, _ = (x.detach() for x in qkv(1, 6, 9, 9, 8))
    features = IndexFeatures(randoms(1, 2, 9, 2, 4), randoms(1, 1, 9, 4))
    with pytest.raises(ValueError, match="features of 2 groups, a target of 3, a selection of 1"):
        backend.indexer_loss(features, attention(q, k, None, 3), random_selection(1, 1, 9, 9, 4))
