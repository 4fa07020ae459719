"""Budgets: what each selector grants, and that adaptive ones come to their target."""

import math

import pytest
import torch

from dsa import compose
from dsa.ops import IndexFeatures, Selection, Zone, select
from dsa.selectors import SelectorContext

LENGTH = 128
CAUSAL = (Zone(first=None),)


def selector_of(*overrides):
    return compose(["seq_len=128", *overrides]).selector.make()


def context(own=16, **values):
    seen = torch.arange(1, LENGTH + 1)[None, None]
    return SelectorContext(seen[0] - 1, seen, seen.clamp(max=own), **values)


def features(seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    q, k, w = (torch.randn(s, generator=draw) for s in ((1, 1, LENGTH, 2, 8), (1, 1, LENGTH, 8), (1, 1, LENGTH, 2)))
    return IndexFeatures(q, k, w * scale)


def test_topk_keeps_the_patterns_budget_unless_told():
    assert torch.equal(
        selector_of("selector=topk").limit(context(own=16))[0, 0, [0, 15, 99]], torch.tensor([1, 16, 16])
    )
    assert int(selector_of("selector=topk", "selector.k=5").limit(context())[0, 0, 99]) == 5


@pytest.mark.parametrize(("name", "at_99"), [("05", 8), ("10", 10), ("25", 25), ("50", 50), ("75", 75), ("90", 90)])
def test_ratio_keeps_that_share_of_the_visible_keys_but_at_least_min_k(name, at_99):
    limit = selector_of(f"selector=ratio_{name}").limit(context())[0, 0]
    assert int(limit[99]) == at_99
    assert int(limit[3]) == 4


@pytest.mark.parametrize(("name", "half"), [("linear", 40), ("exponential", 32), ("cosine", 40)])
def test_progressive_budgets_grow_from_start_to_end(name, half):
    selector = selector_of(f"selector=progressive_{name}")
    budgets = [int(selector.limit(context(progress=p))[0, 0, -1]) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert budgets[0] == 16 and budgets[-1] == 64
    assert budgets[2] == half
    assert budgets == sorted(budgets)
    assert int(selector.limit(context())[0, 0, -1]) == 64


def test_cosine_is_slower_than_linear_at_the_start():
    slow, even = (selector_of(f"selector=progressive_{n}").limit(context(progress=0.2)) for n in ("cosine", "linear"))
    assert int(slow[0, 0, -1]) < int(even[0, 0, -1])


def test_position_shrinks_with_position_within_its_bounds():
    selector = selector_of("selector=adaptive_position", "selector.target_mean=null", "selector.max_k=64")
    limit = selector.limit(context())[0, 0]
    assert int(limit[64]) > int(limit[100]) > int(limit[127]) >= 8
    assert int(limit.max()) <= 64


def entropy_counts(x, selector):
    return select(x, CAUSAL, selector.limit(context()), selector.trim).counts[0, 0]


def test_entropy_gives_flat_rows_more_keys_than_peaked_ones_by_its_exponential():
    selector = selector_of("selector=adaptive_entropy", "selector.target_mean=null")
    flat, peaked = (entropy_counts(features(scale=s), selector) for s in (0.01, 100.0))
    assert int(flat[127]) == 128  # entropy ln 128
    assert int(peaked[127]) == 8  # the lower bound
    row = features().scores(slice(0, LENGTH), slice(0, LENGTH))[0, 0, 127].log_softmax(-1)
    effective = float((-(row.exp() * row).sum()).exp())
    assert int(entropy_counts(features(), selector)[127]) == round(effective)


def test_dynamic_keeps_the_fewest_keys_that_reach_p():
    selector = selector_of(
        "selector=adaptive_dynamic", "selector.target_mean=null", "selector.min_k=1", "selector.p=0.7"
    )
    counts = entropy_counts(features(), selector)
    probability = features().scores(slice(0, LENGTH), slice(0, LENGTH))[0, 0]
    for t in (5, 60, 127):
        share = probability[t, : t + 1].softmax(-1).sort(descending=True).values.cumsum(-1)
        assert int(counts[t]) == int((share < 0.7).sum()) + 1


@pytest.mark.parametrize("name", ["adaptive_entropy", "adaptive_position", "adaptive_dynamic"])
@pytest.mark.parametrize("target", ["20", "pattern"])
def test_adaptive_budgets_come_to_the_target_mean_and_stay_when_frozen(name, target):
    selector = selector_of(f"selector={name}", f"selector.target_mean={target}", "selector.min_k=2")
    trim = selector.trim if selector.trims else None
    for step in range(60):
        chosen = select(features(step), CAUSAL, selector.limit(context(own=24)), trim)
        selector.observe(chosen, context(own=24))
        selector.calibrate(lambda seen: seen)
    wanted = 20.0 if target == "20" else float(context(own=24).own.float().mean())
    gain = float(selector.log_gain)
    mean = torch.cat([select(features(100 + i), CAUSAL, selector.limit(context()), trim).counts for i in range(8)])
    assert abs(float(mean.float().mean()) / wanted - 1) < 0.1
    assert float(selector.log_gain) == gain


def test_the_random_control_is_redrawn_in_training_and_fixed_in_evaluation():
    selector = selector_of("selector=random")

    def draw(step, layer=0):
        scorer = selector.scorer(None, lambda: None, context(step=step, layer=layer))
        return select(scorer, CAUSAL, torch.full((1, 1, LENGTH), 8)).positions

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(0), draw(0, layer=1))


def test_the_window_control_keeps_the_nearest_keys():
    scorer = selector_of("selector=window").scorer(None, lambda: None, context())
    chosen = select(scorer, CAUSAL, torch.full((1, 1, LENGTH), 8))
    assert chosen.positions[0, 0, 100].tolist() == list(range(93, 101))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["selector=ratio_10", "selector.ratio=0"], "selector.ratio = 0"),
        (["selector=ratio_10", "selector.ratio=1.5"], "selector.ratio = 1.5"),
        (["selector=ratio_10", "selector.min_k=0"], "selector.min_k = 0"),
        (["selector=progressive_linear", "selector.end_k=4"], "selector.end_k = 4"),
        (["selector=adaptive_entropy", "selector.max_k=4"], "selector.max_k = 4"),
        (["selector=adaptive_entropy", "selector.target_mean=500"], "selector.target_mean = 500"),
        (["selector=adaptive_entropy", "selector.target_mean=often"], "selector.target_mean = often"),
        (["selector=adaptive_dynamic", "selector.p=1.0"], "selector.p = 1.0"),
    ],
)
def test_an_impossible_setting_is_named(overrides, words):
    with pytest.raises(ValueError, match=words):
        selector_of(*overrides)


def test_observing_a_selection_that_is_too_large_lowers_the_gain():
    selector = selector_of("selector=adaptive_entropy", "selector.target_mean=10")
    selection = Selection(torch.zeros(1, 1, 4, 40), torch.full((1, 1, 4), 40))
    selector.observe(selection, context())
    assert float(selector.log_gain) == 0  # moved only after the optimiser step, so that a recomputed layer agrees
    selector.calibrate(lambda seen: seen)
    once = float(selector.log_gain)
    assert once < 0
    for _ in range(2):
        selector.observe(selection, context())
    selector.calibrate(lambda seen: seen)
    assert float(selector.log_gain) == pytest.approx(2 * once)


@pytest.mark.parametrize("target", ["10", "pattern"])
def test_a_budget_is_calibrated_without_asking_the_device(target, monkeypatch):
    selector = selector_of("selector=adaptive_entropy", f"selector.target_mean={target}")
    selection = Selection(torch.zeros(1, 1, 4, 40), torch.full((1, 1, 4), 40))

    def asked(x):
        raise AssertionError("a number is asked for")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__float__", "__bool__"):
            patch.setattr(torch.Tensor, name, asked)
        selector.observe(selection, context(own=10))
        off = selector.calibrate(lambda seen: seen)
        nothing = selector.calibrate(lambda seen: seen)
    wanted = 10.0 if target == "10" else float(context(own=10).own.float().mean())
    assert float(off) == pytest.approx(40 / wanted - 1) and float(nothing) == 0
    assert float(selector.log_gain) == pytest.approx(-0.2 * math.log(40 / wanted))
