"""What each pattern shows a query, spelled out key by key."""

import functools

import pytest
import torch
from conftest import options

from dsa import compose
from dsa.ops import Hash, Recency, blocked, by_group, native, reference, select
from dsa.ops.zones import spans


def keys_at(zone, times):
    """The keys that a zone shows to a query at each of these times."""
    starts, counts = zone.span(torch.tensor(times))
    pairs = zip(starts.tolist(), counts.tolist(), strict=True)
    return [[start + i * zone.step for i in range(count)] for start, count in pairs]


def keys_of(zone, t):
    return keys_at(zone, [t])[0]


def seen_by(zones, times):
    """The keys that all these zones show to a query at each of these times."""
    by_zone = zip(*(keys_at(zone, times) for zone in zones), strict=True)
    return [[key for shown in each for key in shown] for each in by_zone]


composed = functools.cache(lambda *overrides: compose(list(overrides)))


def pattern_of(*overrides):
    return composed(*overrides).pattern.make()


@pytest.mark.parametrize("name", options("pattern"))
def test_zones_of_every_pattern_are_disjoint_causal_and_counted_right(name):
    pattern = pattern_of(f"pattern={name}")
    times = [*range(70), 200, 333]
    visible, own = pattern.visible(torch.tensor(times)).tolist(), pattern.own_budget(torch.tensor(times)).tolist()
    for zones, shown, kept in zip(by_group(pattern.zones()), visible, own, strict=True):
        for number, (t, seen) in enumerate(zip(times, seen_by(zones, times), strict=True)):
            assert len(seen) == len(set(seen))
            assert all(0 <= key <= t for key in seen)
            assert shown[number] == len(seen)
            assert 1 <= kept[number] <= len(seen)


@pytest.mark.parametrize("t", [0, 31, 32, 47, 48, 63, 64, 200])
def test_sliding_window_shows_the_earliest_window_that_contains_the_query(t):
    (zone,) = pattern_of("pattern=sliding_window_32_16").zones()
    begin = min(b for b in range(0, t + 1, 16) if b <= t < b + 32)
    assert keys_of(zone, t) == list(range(begin, t + 1))
    assert int(zone.kept(torch.tensor(t + 1 - begin))) == -(-(t + 1 - begin) // 2)


def test_local_global_keeps_the_window_and_shows_everything_before():
    recent, distant = pattern_of("pattern=local_global_16_32").zones()
    assert keys_of(recent, 100) == list(range(85, 101))
    assert keys_of(distant, 100) == list(range(85))
    assert recent.forced and not distant.forced
    assert int(pattern_of("pattern=local_global_16_32").own_budget(torch.tensor([100]))) == 48


def test_sinks_are_the_first_keys_of_the_row_and_all_others_compete():
    first, others = pattern_of("pattern=sinks").zones()
    assert keys_of(first, 100) == [0, 1, 2, 3] and keys_of(others, 100) == list(range(4, 101))
    assert keys_of(first, 2) == [0, 1, 2] and keys_of(others, 2) == []
    assert first.forced and not others.forced
    assert int(pattern_of("pattern=sinks").own_budget(torch.tensor([100]))) == 4 + 64


def test_local_global_with_sinks_keeps_both_ends_and_shows_what_lies_between():
    pattern = pattern_of("pattern=local_global_sinks")
    first, recent, between = pattern.zones()
    assert keys_of(first, 100) == [0, 1, 2, 3]
    assert keys_of(recent, 100) == list(range(69, 101))
    assert keys_of(between, 100) == list(range(4, 69))
    assert keys_of(recent, 20) == list(range(4, 21)) and keys_of(between, 20) == []  # no sink is counted twice
    assert first.forced and recent.forced and not between.forced
    assert int(pattern.own_budget(torch.tensor([200]))) == 4 + 32 + 64
    assert int(pattern.own_budget(torch.tensor([50]))) == 51


def test_a_budget_too_small_for_window_and_sinks_keeps_the_nearest():
    pattern = pattern_of("pattern=local_global_sinks")
    assert [shares(pattern, limit, 200) for limit in (1, 32, 34, 36, 40)] == [
        [1, 0, 0], [32, 0, 0], [32, 2, 0], [32, 4, 0], [32, 4, 4],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["sinks", "local_global_sinks"])
@pytest.mark.parametrize("backend", [reference, blocked, native])
def test_sinks_are_kept_by_every_backend_for_every_padded_row(name, backend):
    pattern, length = pattern_of(f"pattern={name}"), 160
    if backend is native and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    first = torch.tensor([0, 9])
    time = torch.arange(length) - first[:, None]
    limit = pattern.own_budget(time.clamp(min=0))
    got = backend.select(Hash(3), pattern.zones(), limit, None, 0, first)
    for row, pad in enumerate(first.tolist()):
        for t in range(pad, length):
            chosen = {key for key in got.positions[row, 0, t].tolist() if key >= 0}
            assert chosen >= set(range(pad, min(pad + 4, t + 1)))
            assert len(chosen) == min(pattern.budget, t + 1 - pad)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("pattern.sinks=0", r"pattern\.sinks = 0: give a whole number from 1"),
        ("pattern.budget=35", r"pattern\.budget = 35: give a whole number from 36 \(it counts sinks"),
    ],
)
def test_sinks_that_are_none_or_exceed_the_budget_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pattern_of("pattern=local_global_sinks", settings)


def test_hierarchical_has_three_distances():
    near, medium, far = pattern_of("pattern=hierarchical_8_32_16").zones()
    assert keys_of(near, 100) == list(range(93, 101))
    assert keys_of(medium, 100) == list(range(61, 93))
    assert keys_of(far, 100) == list(range(61))
    assert [int(z.kept(torch.tensor(len(keys_of(z, 100))))) for z in (near, medium, far)] == [8, 13, 16]


def test_strided_counts_back_from_the_query_and_always_keeps_it():
    own, others = pattern_of("pattern=strided_4").zones()
    assert keys_of(own, 10) == [10]
    assert keys_of(others, 10) == [2, 6]
    assert own.forced


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("local_global", "local_global_32_64"),
        ("sliding_window", "sliding_window_64_32"),
        ("hierarchical", "hierarchical_16_64_32"),
        ("strided", "strided_4"),
    ],
)
def test_short_names_mean_the_middle_variant(name, variant):
    assert compose([f"pattern={name}"]).pattern.node == compose([f"pattern={variant}"]).pattern.node


def shares(pattern, limit, t):
    """Kept keys per zone, in the order forced, scored."""
    every = spans(pattern.zones(), torch.tensor([[[limit]]]), offset=t)
    return [int(span.keep) for span in every]


def test_a_budget_fills_forced_zones_first_then_shares_in_proportion_surplus_to_the_last():
    pattern = pattern_of("pattern=hierarchical_8_32_16")  # at 200: local 8, medium 13 of 32, far 16 of 161
    assert shares(pattern, 37, 200) == [8, 13, 16]
    assert shares(pattern, 5, 200) == [5, 0, 0]
    assert shares(pattern, 8 + 10, 200) == [8, 5, 5]  # ceil(10 * 13 / 29) = 5, the rest to the last
    assert shares(pattern, 8 + 100, 200) == [8, 32, 68]  # ceil(100 * 13 / 29) = 45 is more than medium has
    assert shares(pattern, 1000, 200) == [8, 32, 161]


@pytest.mark.parametrize("name", options("pattern"))
@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_a_selection_is_sorted_unique_inside_the_zones_and_exactly_the_budget(name, limit):
    pattern = pattern_of(f"pattern={name}")
    length = 90
    selection = select(Recency(), pattern.zones(), torch.full((1, 1, length), limit))
    each = by_group(pattern.zones())
    for number, zones in enumerate(each):
        group = number * selection.positions.shape[1] // len(each)  # groups of equal zones may share a selection
        positions, counts = selection.positions[0, group].tolist(), selection.counts[0, group].tolist()
        for keys, count, seen in zip(positions, counts, seen_by(zones, range(length)), strict=True):
            chosen = [key for key in keys if key >= 0]
            assert chosen == sorted(set(chosen))
            assert set(chosen) <= set(seen)
            assert len(chosen) == count == min(limit, len(seen))
            assert set(keys[len(chosen) :]) <= {-1}
