"""What the fused CPU backend promises beyond the contract: layouts, what it leaves for the loss, what it remembers."""

import importlib
import math

import pytest
import torch
from contract.cases import BUILDS, WITHOUT_MATRIX_UNIT, clustered, far, kernels_built, qkv, random_selection, randoms

from dsa.ops import IndexFeatures, Zone, native, reference, select_chosen
from dsa.ops.native import arguments

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
attending = importlib.import_module("dsa.ops.native.attend")
cohort = importlib.import_module("dsa.ops.native.cohort")


@pytest.fixture(params=["cpu", *BUILDS], scope="module")
def built(request):
    """The kernels for this processor, for lesser ones, and on std::thread instead of OpenMP."""
    with kernels_built(request.param):
        yield


def step(threads, length=500):
    torch.set_num_threads(threads)
    q, k, v = qkv(1, 4, length, length, 20, kv_heads=2)
    features = IndexFeatures(
        *(randoms(*s).requires_grad_() for s in ((1, 1, length, 2, 4), (1, 1, length, 4), (1, 1, length, 2)))
    )
    selection = native.select(features, (Zone(None),), torch.full((1, 1, length), 60))
    out, target = native.attend_with_target(q, k, v, selection)
    loss = native.indexer_loss(features, target, selection)
    grads = torch.autograd.grad((out * randoms(*out.shape)).sum() + loss, [q, k, v, *features[:3]])
    return [selection.positions, out.detach(), target.logsumexp, loss.detach(), *grads]


def test_structures_of_another_size_than_in_the_kernels_are_refused():
    structures = (cohort.CohortArgs, cohort.IndexerArgs, arguments.Heads)
    arguments.loaded("cohort.cpp", structures)
    longer = arguments.structure("CohortArgs", " ".join([name for name, _ in cohort.CohortArgs._fields_] + ["more"]))
    with pytest.raises(RuntimeError, match=r"cohort\.cpp: CohortArgs has \d+ bytes here and \d+ in the kernels"):
        arguments.loaded("cohort.cpp", (longer, *structures[1:]))


@pytest.mark.parametrize("threads", [1, 2])
def test_results_repeat_bit_for_bit(built, threads):
    for a, b in zip(step(threads), step(threads), strict=True):
        assert torch.equal(a, b)


def test_results_hardly_depend_on_the_number_of_threads(built):
    for a, b, c in zip(step(1), step(2), step(5), strict=True):
        assert far(b, a) < 1e-6
        assert far(c, a) < 1e-6


def test_output_and_gradients_lie_in_memory_as_the_projections_do(built):
    q, k, v = qkv(2, 4, 30, 30, 8)
    out, _ = native.attend(q, k, v, random_selection(2, 1, 30, 30, 9))
    for x in (out, *torch.autograd.grad(out.sum(), (q, k, v))):
        assert x.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_loss_is_the_same_from_the_probabilities_that_attending_left(built, groups, threads):
    torch.set_num_threads(threads)
    q, k, v = qkv(1, 4, 60, 60, 8)
    features = IndexFeatures(*(randoms(*s) for s in ((1, groups, 60, 2, 4), (1, 1, 60, 4), (1, groups, 60, 2))))
    selection = random_selection(1, groups, 60, 60, 20)
    _, target = native.attend_with_target(q, k, v, selection, groups)
    assert target.mass is not None
    left = native.indexer_loss(features, target, selection)
    wanted = reference.indexer_loss(features, target._replace(mass=None), selection)
    torch.testing.assert_close(left, wanted)
    torch.testing.assert_close(left, native.indexer_loss(features, target._replace(mass=None), selection))
    squared = target._replace(mass=target.mass._replace(sums=target.mass.sums.square()))
    assert (native.indexer_loss(features, squared, selection) - left).abs() > 1e-3  # it is what was left that is read


@pytest.mark.parametrize("sunk", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_many_tiles_leave_the_probabilities_that_one_leaves(built, monkeypatch, threads, sunk):
    torch.set_num_threads(threads)
    q, k, v = qkv(2, 4, 150, 150, 8)
    sink = randoms(4) if sunk else None
    selection = random_selection(2, 2, 150, 150, 40)  # some queries keep nothing, some nothing of the last tile
    assert (selection.counts == 0).any() and (selection.positions.amax(-1) < 130).any()
    one = native.attend_with_target(q, k, v, selection, 2, sink)
    monkeypatch.setattr(attending, "tile_keys", lambda *_: 20)
    many, again = (native.attend_with_target(q, k, v, selection, 2, sink) for _ in range(2))
    chosen = torch.arange(48) < selection.counts.transpose(0, 1)[..., None]
    left = [target.mass.sums.where(chosen, 0.0) for _, target in (one, many, again)]
    torch.testing.assert_close(left[1], left[0])
    assert torch.equal(left[1], left[2]) and torch.equal(many[0], again[0])
    assert torch.equal(many[0], native.attend(q, k, v, selection, sink)[0]), "what is left does not change the output"
    if not sunk:
        kept = (selection.counts > 0).transpose(0, 1).float()
        torch.testing.assert_close(left[1].sum(-1), 2 * kept)  # two heads a group


def test_without_room_or_with_other_groups_no_probabilities_are_left(built, monkeypatch):
    q, k, v = qkv(1, 4, 60, 60, 8)
    selection = random_selection(1, 1, 60, 60, 20)
    assert native.attend_with_target(q, k, v, selection, groups=2)[1].mass is None
    monkeypatch.setattr(attending, "KEPT_MASS", 0)
    assert native.attend_with_target(q, k, v, selection)[1].mass is None


@pytest.mark.parametrize("built", ["cpu", *BUILDS, WITHOUT_MATRIX_UNIT], indirect=True)
@pytest.mark.parametrize("broken", ["key", "value", "query", "grad"])
def test_nan_reaches_the_gradients_of_the_pairs_it_belongs_to_and_no_others(built, broken):
    q, k, v = (x.detach() for x in qkv(1, 1, 96, 96, 32))
    grad = randoms(1, 1, 96, 32, seed=1)
    all_ones = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # the NaN that rounding up could carry to zero
    {"key": k, "value": v, "query": q, "grad": grad}[broken][0, 0, 50] = all_ones
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    selection = clustered(96, 96, 30, 5)
    out, _ = native.attend(q, k, v, selection)
    grads = torch.autograd.grad(out, (q, k, v), grad)
    chosen = torch.zeros(96, 97, dtype=torch.bool).scatter(1, selection.positions[0, 0].long() % 97, True)[:, :96]
    hit = torch.zeros(96, dtype=torch.bool)
    if broken in ("key", "value"):
        hit = chosen[:, 50]
    else:
        hit[50] = True
    assert bool(grads[0][0, 0, ~hit].isfinite().all())
    assert bool(grads[0][0, 0, hit].isnan().all())
    touched = chosen[hit].any(0)
    assert bool(grads[1][0, 0, ~touched].isfinite().all())
    assert bool(grads[2][0, 0, ~touched].isfinite().all())


def test_a_budget_that_changes_in_place_is_another_budget():
    torch.manual_seed(0)
    zones = (Zone(5, keep="all"), Zone(None, 6))
    features = IndexFeatures(
        torch.randint(-2, 3, (2, 2, 60, 2, 4)).float(), torch.randint(-2, 3, (2, 1, 60, 4)).float()
    )
    limit, first = torch.full((2, 1, 60), 9), torch.tensor([0, 7])
    nothing = lambda: None
    for change in (nothing, nothing, lambda: limit[1, 0, 20:].fill_(3), lambda: first.fill_(5)):
        change()
        got = native.select(features, zones, limit, None, 0, first)
        wanted = reference.select(features, zones, limit, None, 0, first)
        for mine, theirs in zip(got, wanted, strict=True):
            assert torch.equal(mine, theirs)
        got.counts.zero_()  # what a caller does to its selection does not come back with the next


def test_one_key_is_not_a_share_of_all_though_the_numbers_are_equal():
    torch.manual_seed(0)
    features = IndexFeatures(torch.randn(1, 1, 40, 1, 4), torch.randn(1, 1, 40, 4))
    limit = torch.full((1, 1, 40), 8)
    for keep in (1, 1.0):
        zones = (Zone(3, keep=keep), Zone(None, 4, keep=4))
        got, wanted = (of.select(features, zones, limit, None, 0, None) for of in (native, reference))
        assert torch.equal(got.positions, wanted.positions)


def test_keys_of_which_a_query_may_keep_none_are_not_scored():
    keys = torch.ones(1, 1, 40, 4).index_fill(2, torch.arange(8), math.nan)  # whoever scores them is told
    x = IndexFeatures(torch.ones(1, 1, 40, 2, 4), keys)
    library = ((Zone(first=None),), (Zone(first=8),))
    entry = torch.ones(1, 1, 40, dtype=torch.long)
    limit = torch.where(torch.arange(40) < 20, 0, 4).expand(1, 1, 40)
    found = select_chosen(x, library, entry, limit, backend="native")
    assert found.counts[0, 0].tolist() == limit[0, 0].tolist() and int(found.positions[0, 0, 20:].min()) >= 12
    with pytest.raises(FloatingPointError, match="are NaN"):
        select_chosen(x, library, 1 - entry, limit, backend="native")
