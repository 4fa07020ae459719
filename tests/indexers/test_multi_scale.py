"""Three scales in one score: what each counts for, what it costs, and that no format lets the future in."""

import pytest
import torch
from conftest import QUIET, SMALL
from test_causality import assert_causal

from dsa import build_model, compose, train
from dsa.backbones import Pass
from dsa.backbones.initial import draw_indexer
from dsa.ops import Rotation, by_group, native
from dsa.ops.contracts import Call
from dsa.training.variants import VariantFault, check_bands

LENGTH, REACH, FAR, BLOCK = 50, 6, 9, 4
SIZES = {"heads": 1, "dim": 4, "near_heads": 3, "near_dim": 8, "far_heads": 2, "far_dim": 6}
SET = {"reach": REACH, "far": FAR, "block": BLOCK} | SIZES
OWN = ["indexer=multi_scale", *(f"indexer.{name}={value}" for name, value in SET.items())]


def made(seed=0, length=LENGTH):
    """An indexer with every part of it at work, hidden states, and its features of them."""
    indexer = compose([*SMALL, *OWN]).indexer.make(d_model=32)
    draw_indexer(indexer, seed, 0)
    x = torch.randn(2, length, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in indexer.parameters():
            parameter.mul_(10)
        indexer.factors.copy_(torch.tensor([0.5, -0.2, 0.3]))
        indexer.constants.copy_(torch.tensor([0.7, -0.4]))
        return indexer, x, indexer(x, Rotation(length, 10000.0))


def test_a_score_is_the_sum_of_the_scales_that_reach_the_key():
    indexer, x, features = made()
    rotary, every = Rotation(LENGTH, 10000.0), slice(0, LENGTH)
    with torch.no_grad():
        near, whole, far = (part(x, rotary) for part in (indexer.near, indexer.whole, indexer.far))
        scores = features.scores(every, every)
        near, whole = near.scores(every, every), whole.scores(every, every)
        far = far.scores(every, slice(0, LENGTH // BLOCK))
    a, b, c = indexer.factors.exp().tolist()
    d, e = indexer.constants.tolist()
    for t in range(LENGTH):
        for s in range(t + 1):
            expected = b * whole[:, 0, t, s]
            if t - s < REACH:
                expected = expected + a * near[:, 0, t, s] + d
            if t - s >= FAR:
                expected = expected + c * far[:, 0, t, s // BLOCK] + e
            torch.testing.assert_close(scores[:, 0, t, s], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["causal", "local_global_16_32", "strided_2", "hierarchical_8_32_16", "sinks"])
def test_its_operations_are_those_of_what_each_scale_scores(pattern):
    _, _, features = made()
    zones = compose([*SMALL, f"pattern={pattern}"]).pattern.make().zones()
    counted = {"near": 0, "whole": 0, "far": 0, "constants": 0}
    for t in range(LENGTH):
        for zone in by_group(zones)[0]:
            keys = [] if zone.forced else held(zone, t)
            near, far = [s for s in keys if t - s < REACH], [s for s in keys if t - s >= FAR]
            counted["near"] += len(near)
            counted["whole"] += len(keys)
            counted["far"] += len({s // BLOCK for s in far})
            counted["constants"] += len(near) + len(far)
    pair = {"near": 3 * (2 * 8 + 3), "whole": 2 * 4 + 3, "far": 2 * (2 * 6 + 3), "constants": 1}
    assert counted["whole"] > 0
    assert features.cost(zones, LENGTH) == sum(pair[name] * number for name, number in counted.items())


def held(zone, t):
    """The keys that a zone holds of a query."""
    start, count = (int(x) for x in zone.span(torch.tensor([[t]])))
    return range(start, start + count * zone.step, zone.step)


def test_its_keys_count_once_and_far_ones_once_a_block():
    _, _, features = made()
    queries, keys = features.numbers(LENGTH)
    assert queries == LENGTH * (3 * 8 + 4 + 2 * 6)
    assert keys == LENGTH * (8 + 4) + LENGTH // BLOCK * 6


@pytest.mark.parametrize("cut", [21, 24, 31])
def test_no_row_of_keys_knows_a_later_token(cut):
    """So that no format's scale does."""
    indexer, x, features = made()
    x[:, cut:] += 1
    other = indexer(x, Rotation(LENGTH, 10000.0))
    assert torch.equal(features.keys[:, :, :cut], other.keys[:, :, :cut])
    assert not torch.equal(features.keys[:, 2, cut:], other.keys[:, 2, cut:])


@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8", "int8_tensor", "int4_group", "dynamic"])
def test_changing_the_future_leaves_the_past_untouched_in_every_kind_of_format(precision):
    assert_causal([*OWN, "pattern=causal", "selector.k=10", f"precision={precision}"])


def test_every_scale_factor_and_constant_learns():
    model = build_model(compose([*SMALL, *OWN, "pattern=causal", "selector.k=10"]), 64)
    tokens = torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))
    model.run(tokens, Pass(teach=True)).losses["indexer"].backward()
    for router in model.routers:
        assert all(parameter.grad.abs().sum() > 0 for parameter in router.indexer.parameters())


def test_the_fused_kernels_leave_it_to_plain_pytorch():
    _, _, features = made()
    assert "score some distances alone" in native.covers(Call(scorer=features))
    assert "score some distances alone" in native.covers(Call(learner=features))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["indexer.far=2"], "indexer.far = 2: give a whole number from 3"),
        (["indexer.reach=0"], "indexer.reach = 0: give a whole number from 1"),
        (["indexer.block=0"], "indexer.block = 0: give a whole number from 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        compose([*SMALL, *OWN, *overrides]).indexer.make(d_model=32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda bands: bands[:2], "bands is of 4 heads; give bands of 8 heads together"),
        (lambda bands: (*bands[:4], bands[4]._replace(keygroup=4)), "keygroups from 0 to 3"),
        (lambda bands: (*bands[:2], bands[2]._replace(first=2), *bands[3:]), "no band nearer than its unit - 1"),
    ],
)
def test_bands_that_do_not_fit_the_features_are_refused_before_anything_is_trained(changed, message):
    indexer, _, features = made()
    with pytest.raises(VariantFault, match=message):
        check_bands(indexer, features._replace(bands=changed(features.bands)))


@pytest.mark.slow
def test_its_times_are_no_speed(outputs):
    steps = ["recipe=judge", "recipe.dense.steps=2", "recipe.warmup.steps=2", f"output_dir={outputs}"]
    result = train(compose([*SMALL, *QUIET, *OWN, *steps, "pattern=causal", "selector.k=8"]))
    assert result.density < 1
    assert not result.speed_is_real
