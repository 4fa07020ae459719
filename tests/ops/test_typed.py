"""Annotations are held to their word while tests run."""

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError, config
from torch import Tensor
from typed import first_of_a_kind

from dsa import ops
from dsa.ops.cost import index_pair_flops


def test_a_call_whose_shapes_do_not_fit_its_annotations_is_refused_here():
    q, k = torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5)
    with pytest.raises(TypeCheckError, match="parameter 'k'"):
        ops.dense_logsumexp(q, k)


def taken(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return x


def test_a_call_with_other_shapes_or_formats_is_checked_however_many_passed_before():
    given = first_of_a_kind(taken, typechecker=beartype)
    for _ in range(2):
        given(torch.zeros(3))
    for wrong in (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), "x"):
        with pytest.raises(TypeCheckError, match="parameter"):
            given(wrong)


def test_a_function_that_is_first_called_unchecked_is_checked_later(request):
    given = first_of_a_kind(taken, typechecker=beartype)
    config.update("jaxtyping_disable", True)
    request.addfinalizer(lambda: config.update("jaxtyping_disable", False))
    given(torch.zeros(3, 1))
    config.update("jaxtyping_disable", False)
    with pytest.raises(TypeCheckError, match="parameter"):
        given(torch.zeros(3, 1))


def test_a_whole_number_is_a_number():
    assert index_pair_flops(2, 8) == 2 * 2 * 8 + 3 * 2


@pytest.mark.usefixtures("untyped")
def test_a_test_may_ask_what_users_get_where_nobody_checks():
    with pytest.raises((ValueError, IndexError)) as caught:
        ops.dense_logsumexp(torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5))
    assert not isinstance(caught.value, TypeCheckError)
