"""What the fused kernels remember of budgets is found by value alone."""

import pytest
import torch

from dsa.ops import IndexFeatures, Zone, native, reference

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


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
