"""What a lightning indexer makes of its projection: the kernels against the definition."""

import pytest
import torch

from dsa import ops
from dsa.ops import Rotation, native, reference

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
FORMS = [
    (1, 1, 0, 1),
    (1, 2, None, 0),
    (2, 6, None, 2),
    (1, 8, None, 1),
    (4, 64, None, 4),
    (3, 24, 16, 3),
    (8, 128, 64, 8),
]


def given(heads, dim, rest, batch=2, time=70):
    torch.manual_seed(heads + dim)
    projected = torch.randn(batch, time, (heads + 1) * dim + rest) * 2 + 0.3
    return [x.requires_grad_() for x in (projected, torch.randn(dim), torch.randn(dim))]


def answers(backend, tensors, heads, rotary, rotary_dim, wanted=(0, 1, 2)):
    """Queries, keys and rest, and what each given tensor gets for those of them that are wanted."""
    projected, weight, bias = (x.detach().clone().requires_grad_() for x in tensors)
    found = backend.lightning_features(projected, heads, weight, bias, 0.1, rotary, rotary_dim)
    torch.manual_seed(0)
    upstream = [torch.randn(x.shape).to(x.dtype) for x in found]
    sum((found[n] * upstream[n]).sum() for n in wanted).backward()
    return [*found, *(x.grad for x in (projected, weight, bias))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("heads", "dim", "rotary_dim", "rest"), FORMS)
def test_the_kernels_give_the_definition_and_its_gradients(heads, dim, rotary_dim, rest, threads):
    rotary, tensors = Rotation(70, 100.0, offset=5), given(heads, dim, rest)
    wanted = answers(reference, [x.double() for x in tensors], heads, rotary, rotary_dim)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = answers(native, tensors, heads, rotary, rotary_dim)
    finally:
        torch.set_num_threads(before)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x.double(), y, atol=2e-5, rtol=2e-5)


def test_threads_change_no_bit():
    rotary, tensors, found = Rotation(300, 100.0), given(2, 16, 2, batch=3, time=300), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(answers(native, tensors, 2, rotary, None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1)])
def test_what_nothing_was_asked_of_gets_no_gradient(wanted):
    rotary, tensors = Rotation(70, 100.0), given(2, 8, 2)
    found, right = (answers(own, tensors, 2, rotary, None, wanted)[3:] for own in (native, reference))
    for x, y in zip(found, right, strict=True):
        torch.testing.assert_close(x, torch.zeros_like(x) if y is None else y, atol=2e-5, rtol=2e-5)


def test_what_is_no_number_stays_none_and_stays_where_it_is():
    tensors = given(2, 8, 2)
    broken = tensors[0].detach().clone()
    broken[1, 7, 17] = float("nan")  # in the key
    queries, keys, rest = native.lightning_features(broken, 2, *tensors[1:], 1e-6, Rotation(70, 100.0))
    assert (
        keys[1, 0, 7].isnan().all() and keys.isnan().sum() == 8 and not queries.isnan().any() and not rest.isnan().any()
    )


def test_half_formats_come_back_as_they_came():
    tensors = [x.detach().bfloat16() for x in given(2, 8, 2)]
    found, right = (answers(own, tensors, 2, Rotation(70, 100.0), None) for own in (native, reference))
    for x, y in zip(found, right, strict=True):
        assert x.dtype == y.dtype == torch.bfloat16
        torch.testing.assert_close(x, y, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("change", "wrong"), [
    ({"rotary": Rotation(69, 100.0)}, "69 positions as many tokens"), ({"heads": 3}, "need a width of at least 32"),
    ({"rotary_dim": 7}, "rotary_dim = 7"), ({"rotary_dim": 10}, "rotary_dim = 10: give an even number from 0 to the 8"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(backend, change, wrong):
    projected, weight, bias = given(2, 8, 2)
    fits = {"heads": 2, "weight": weight, "bias": bias, "eps": 0.1, "rotary": Rotation(70, 100.0), "rotary_dim": None}
    with pytest.raises(ValueError, match=wrong):
        ops.lightning_features(projected, **fits | change, backend=backend)


def test_inputs_of_other_layouts():
    projected, weight, bias = (x.detach() for x in given(2, 8, 2))
    rotary, wide = Rotation(70, 100.0), projected.mT.contiguous().mT
    right = reference.lightning_features(projected, 2, weight, bias, 1e-6, rotary)
    for x, y in zip(native.lightning_features(wide, 2, weight, bias, 1e-6, rotary), right, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)
