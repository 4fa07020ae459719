"""Zones: what they refuse, and that a left-padded row sees what the unpadded one sees, in units too."""

import ctypes

import pytest
import torch

from dsa.ops import Hash, IndexFeatures, Recency, TrueAttention, Zone, cost, native, reference
from dsa.ops.native import arguments
from dsa.ops.zones import spans

CAUSAL = (Zone(None),)


@pytest.mark.parametrize("keep", ["al", "ALL", True, None, [3]])
@pytest.mark.usefixtures("untyped")
def test_a_word_that_says_nothing_of_how_much_is_kept_is_refused(keep):
    with pytest.raises(ValueError, match=r"zone\.keep = .*: give all, selector, a number of keys or a share of them"):
        Zone(None, keep=keep)


@pytest.mark.parametrize(("begin", "end"), [(-1, None), (0, 0), (4, 4), (5, 3)])
def test_a_zone_that_ends_before_it_begins_is_refused(begin, end):
    with pytest.raises(ValueError, match=rf"zone\.begin = {begin}, zone\.end = {end}: "):
        Zone(None, begin=begin, end=end)


def test_a_zone_that_begins_inside_a_unit_is_refused():
    with pytest.raises(ValueError, match=r"zone\.begin = 6 with units of 4 tokens: .* a multiple of the unit"):
        spans((Zone(None, begin=6),), torch.full((1, 1, 20), 9), unit=4)


def test_a_row_padded_by_parts_of_units_is_refused_and_by_whole_ones_sees_the_same():
    torch.manual_seed(0)
    keys = torch.randint(-2, 3, (1, 1, 20, 4)).float()
    queries = torch.randint(-2, 3, (1, 1, 20, 2, 4)).float()
    plain = IndexFeatures(queries, keys, pool="max", unit=4)
    wanted = reference.select(plain, CAUSAL, torch.full((1, 1, 20), 9))
    for pad in (1, 3, 4, 8):
        blank = [torch.cat([x.new_zeros(x[:, :, :pad].shape), x], 2) for x in (queries, keys)]
        padded = plain._replace(queries=blank[0], keys=blank[1])
        limit, first = torch.full((1, 1, 20 + pad), 9), torch.tensor([pad])
        if pad % 4:
            with pytest.raises(ValueError, match=rf"first = \[{pad}\]: .* a multiple of their 4 tokens"):
                reference.select(padded, CAUSAL, limit, first=first)
            continue
        got = reference.select(padded, CAUSAL, limit, first=first)
        shifted = torch.where(wanted.positions >= 0, wanted.positions + pad, -1)
        assert torch.equal(got.positions[:, :, pad:], shifted)


RULES = {
    "causal": CAUSAL,
    "local_global": (Zone(31, keep="all"), Zone(None, 32)),
    "sliding_window": (Zone(31, align=16, keep=0.5),),
    "strided": (Zone(0, keep="all"), Zone(None, 8, 8, keep=0.5)),
    "hierarchical": (Zone(7, keep="all"), Zone(39, 8, keep=0.4), Zone(None, 40, keep=16)),
    "forced": (Zone(9, keep="all"),),
    "sinks": (Zone(None, keep="all", end=4), Zone(15, keep="all", begin=4), Zone(None, 16, begin=4)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("forced", [(), (Zone(5, keep="all"),), (Zone(2, align=4, keep="all"),)])
def test_scored_pairs_are_those_that_compete_in_the_definition(rule, unit, forced):
    zones, length = RULES[rule], 90
    if unit > 1 and any(zone.step > 1 for zone in zones):
        with pytest.raises(ValueError, match="units need contiguous zones"):
            cost.scored_pairs(zones, length, unit, forced)
        return
    every = spans(zones, torch.full((1, 1, length), 7), unit=unit, forced=forced)
    scored = [span for span in every if not span.forced]
    masks = [reference.members(span, length // unit) for span in scored]
    wanted = int(torch.stack(masks).any(0).sum()) if masks else 0
    assert cost.scored_pairs(zones, length, unit, forced) == wanted
    if rule == "causal" and unit == 1 and not forced:
        assert wanted == cost.causal_pairs(length)
    if rule == "forced":
        assert wanted == 0


def test_every_scorer_tells_the_cost_of_its_scores():
    q, k = torch.randn(1, 4, 30, 8), torch.randn(1, 2, 30, 8)
    features = IndexFeatures(torch.randn(1, 2, 30, 3, 16), torch.randn(1, 1, 30, 16))
    pairs = cost.scored_pairs(RULES["local_global"], 60)
    assert features.cost(RULES["local_global"], 60) == 2 * (2 * 3 * 16 + 3 * 3) * pairs
    each = (RULES["local_global"], RULES["causal"])
    assert features.cost(each, 60) == (2 * 3 * 16 + 3 * 3) * (pairs + cost.causal_pairs(60))
    attention = TrueAttention(q, k, reference.dense_logsumexp(q, k), 2)
    assert attention.cost(CAUSAL, 30) == 4 * (2 * 8 + 2) * cost.causal_pairs(30)
    assert Hash(0).cost(CAUSAL, 30) == Recency().cost(CAUSAL, 30) == 0
    coarse = features._replace(keys=features.keys[:, :, :7], unit=4)
    assert coarse.cost(CAUSAL, 30) == 2 * (2 * 3 * 16 + 3 * 3) * cost.scored_pairs(CAUSAL, 30, 4)


@pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
def test_a_structure_that_is_not_the_kernels_is_noticed_when_they_are_loaded():
    short = arguments.structure("Short", "*zones")
    with pytest.raises(RuntimeError, match=r"select\.cpp: Short has 8 bytes here and \d+ in the kernels"):
        arguments.loaded("select.cpp", (short,), SCORER=3)
    assert isinstance(arguments.loaded("select.cpp", (), SCORER=3), ctypes.CDLL)
