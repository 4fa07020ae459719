"""The losses of several indexers over one target: those of the definition, whichever others are in the list."""

import pytest
import torch

from dsa import ops
from dsa.bench.measure import peak_memory
from dsa.ops import IndexFeatures, TrueAttention, Zone, blocked, native, reference

BACKENDS = {"reference": reference, "blocked": blocked, "cpu": native}
FORMS = [(1, 8), (2, 16), (3, 24), (4, 32), (1, 1), (5, 2), (1, 64), (2, 6)]  # heads, dims
needs_kernels = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


@pytest.fixture(autouse=True)
def kernels(request):
    if "cpu" in request.node.name and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))


def attention(batch=2, time=70, keys=70, heads=4, dim=8, groups=1):
    torch.manual_seed(1)
    q, k = torch.randn(batch, heads, time, dim), torch.randn(batch, heads, keys, dim)
    return TrueAttention(q, k, reference.dense_logsumexp(q, k), groups)


def index_features(heads, dim, batch=2, time=70, keys=70, groups=1, shared=True, weighted=True, activation="relu"):
    torch.manual_seed(heads + dim)
    shapes = [(batch, groups, time, heads, dim), (batch, 1 if shared else groups, keys, dim)]
    shapes += [(batch, groups, time, heads)] if weighted else []
    scales = dim**-0.5, 1, heads**-0.5
    tensors = ((torch.randn(s) * x).requires_grad_() for s, x in zip(shapes, scales, strict=False))
    return IndexFeatures(*tensors, activation=activation)


def inputs(features):
    return [x for x in features[:3] if x is not None]


def with_gradients(loss, features):
    return [loss, *torch.autograd.grad(loss * 3, inputs(features), retain_graph=True)]


def exactly(features, target):
    """The definition in float64."""
    leaves = [None if x is None else x.detach().double().requires_grad_() for x in features[:3]]
    features = features._replace(queries=leaves[0], keys=leaves[1], weights=leaves[2])
    if isinstance(target, TrueAttention):
        target = target._replace(**{n: getattr(target, n).double() for n in ("queries", "keys", "logsumexp")})
    return with_gradients(reference.indexer_loss(features, target, None), features)


def assert_near(got, wanted):
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=0, atol=1e-6 * max(y.abs().max().item(), 1e-3))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_losses_and_gradients_are_those_of_the_definition(backend, activation, weighted):
    target = attention()
    cohort = [index_features(*form, weighted=weighted, activation=activation) for form in FORMS]
    losses = ops.indexer_losses(cohort, target, backend=backend)
    for loss, features in zip(losses, cohort, strict=True):
        assert_near(with_gradients(loss, features), exactly(features, target))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("target_groups", "shared"), [(1, True), (1, False), (2, True), (2, False)])
@pytest.mark.parametrize("explicit", [False, True])
def test_groups_learn_their_own_share_of_the_target(backend, target_groups, shared, explicit):
    target = attention(groups=target_groups)
    if explicit:
        target = torch.rand(2, target_groups, 70, 70) * (torch.rand(2, target_groups, 70, 70) > 0.3)
    cohort = [index_features(*form, groups=2, shared=shared) for form in FORMS[:3]]
    for loss, features in zip(ops.indexer_losses(cohort, target, backend=backend), cohort, strict=True):
        assert_near(with_gradients(loss, features), exactly(features, target))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("batch", "time", "keys"),
    [(0, 5, 5), (2, 0, 5), (2, 3, 0), (2, 1, 1), (2, 1, 5), (1, 33, 90), (1, 90, 33), (1, 300, 300)],
)
def test_any_number_of_queries_and_keys(backend, batch, time, keys):
    cohort = [index_features(*form, batch, time, keys) for form in FORMS[:2]]
    for target in (attention(batch, time, keys), torch.rand(batch, 1, time, keys)):
        for loss, features in zip(ops.indexer_losses(cohort, target, backend=backend), cohort, strict=True):
            got = with_gradients(loss, features)
            assert all(x.isfinite().all() for x in got)
            if features.queries.numel() and features.keys.numel():
                assert_near(got, exactly(features, target))


@pytest.mark.parametrize(("backend", "threads"), [("reference", 1), ("blocked", 1), ("cpu", 1), ("cpu", 2)])
def test_an_indexer_learns_the_same_bit_for_bit_alone_and_in_any_cohort(backend, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        target = attention(3, 150, 150)
        cohort = [index_features(*form, 3, 150, 150) for form in FORMS]
        alone = [with_gradients(ops.indexer_loss(x, target, None, backend=backend), x) for x in cohort]
        for others in (cohort, cohort[::-1], cohort[2:5]):
            losses = ops.indexer_losses(others, target, backend=backend)
            for loss, features in zip(losses, others, strict=True):
                wanted = alone[next(n for n, x in enumerate(cohort) if x is features)]
                for x, y in zip(with_gradients(loss, features), wanted, strict=True):
                    assert torch.equal(x, y)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_losses_that_are_differentiated_give_gradients(backend):
    target = attention()
    cohort = [index_features(*form) for form in FORMS[:3]]
    losses = ops.indexer_losses(cohort, target, backend=backend)
    (losses[0] + 2 * losses[2]).backward()
    assert cohort[1].queries.grad is None or not cohort[1].queries.grad.any()
    assert_near([cohort[2].keys.grad * 1.5], [exactly(cohort[2], target)[2]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_may_be_differentiated_twice(backend):
    features = index_features(2, 16)
    (loss,) = ops.indexer_losses([features], attention(), backend=backend)
    once = torch.autograd.grad(loss, inputs(features), retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    for x, y in zip(inputs(features), once, strict=True):
        torch.testing.assert_close(x.grad, 2 * y)


@pytest.mark.parametrize("backend", ["auto", "blocked"])
def test_indexers_that_learn_in_a_narrow_format_go_beside_others(backend):
    target = attention()
    cohort = [index_features(*form) for form in FORMS[:4]]
    cohort[1] = cohort[1]._replace(accumulate=torch.bfloat16)
    cohort[3] = cohort[3]._replace(activation="none")
    losses = ops.indexer_losses(cohort, target, backend=backend)
    for loss, features in zip(losses, cohort, strict=True):
        got = with_gradients(loss, features)
        wanted = with_gradients(reference.indexer_loss(features, target, None), features)
        assert_near(got, [x.double() for x in wanted])


@needs_kernels
def test_what_the_kernels_do_not_cover_is_served_by_another_backend():
    forced = (Zone(first=3, keep="all"),)
    cohort = [index_features(1, 8), index_features(1, 8)._replace(accumulate=torch.bfloat16)]
    cohort.append(index_features(2, 16)._replace(forced=forced))
    losses = ops.indexer_losses(cohort, attention(), backend="cpu")
    for loss, features in zip(losses, cohort, strict=True):
        torch.testing.assert_close(loss, reference.indexer_loss(features, attention(), None))


@needs_kernels
@pytest.mark.parametrize("groups", [1, 2])
def test_heads_that_share_keys_are_as_heads_with_equal_keys(groups):
    q = torch.randn(2, 6, 70, 8)
    k = torch.randn(2, 2, 70, 8)
    repeated = k.repeat_interleave(3, 1)
    logsumexp = reference.dense_logsumexp(q, repeated)
    features = index_features(2, 16, groups=groups)
    grouped, full = (native.indexer_losses([features], TrueAttention(q, x, logsumexp, groups)) for x in (k, repeated))
    for x, y in zip(*(with_gradients(losses[0], features) for losses in (grouped, full)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("broken", ["queries", "keys", "weights", "target"])
def test_what_is_not_a_number_stays_so_in_the_loss_and_only_there(backend, broken):
    target = attention()
    sound, sick = index_features(1, 8), index_features(2, 16)
    if broken == "target":
        target = target._replace(logsumexp=target.logsumexp.index_fill(2, torch.tensor([40]), torch.nan))
    else:
        with torch.no_grad():
            getattr(sick, broken)[0, 0, 40] = torch.nan
    good, bad = ops.indexer_losses([sound, sick], target, backend=backend)
    assert bad.isnan()
    assert good.isnan() == (broken == "target")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_with_other_groups_is_refused(backend):
    cohort = [index_features(1, 8, groups=4), index_features(1, 8)]
    with pytest.raises(ValueError, match="features of 4 groups, a target of 2"):
        ops.indexer_losses(cohort, attention(groups=2), backend=backend)


def test_no_indexers_have_no_losses():
    assert ops.indexer_losses([], attention()) == []


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("backend", ["cpu", "blocked"])
def test_memory_never_holds_queries_times_keys(backend, monkeypatch):
    monkeypatch.setattr(blocked.tiles, "TILE", 1 << 16)
    length = 2048
    target = attention(1, length, length, heads=2)
    cohort = [index_features(heads, 8, 1, length, length) for heads in (1, 2)]
    tensors = [x for each in cohort for x in inputs(each)]
    native.workspace.release()
    peak = peak_memory(
        lambda: list(torch.autograd.grad(sum(ops.indexer_losses(cohort, target, backend=backend)), tensors))
    )
    assert peak < 4 * length * length / 4
