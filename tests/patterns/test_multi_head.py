"""Fixed patterns dealt to groups of heads."""

import pytest
import torch
from conftest import SMALL

from dsa import build_model, compose
from dsa.backbones import Pass
from dsa.judging.cost import flops
from dsa.ops.reference import to_mask
from dsa.training.maps import selection_figure

DEALT = [*SMALL, "model.heads=4", "indexer=h1d8", "pattern=multi_head", "pattern.patterns.near.window=4",
         "pattern.patterns.near.budget=9"]  # fmt: skip


def observed(model, tokens):
    seen = []
    with torch.no_grad():
        logits = model.eval().run(tokens, Pass(observe=seen.append)).logits
    return logits, seen


def model_of(*overrides):
    return build_model(compose([*DEALT, *overrides]), 64)


def tokens():
    return torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_each_group_of_heads_keeps_what_its_own_pattern_would_keep():
    _, both = observed(model_of(), tokens())
    for name, group in (("near", 0), ("far", 1)):
        _, alone = observed(
            model_of(f"pattern.deal={name} {name}", f"~pattern.patterns.{'far' if group == 0 else 'near'}"), tokens()
        )
        mine, wanted = (to_mask(seen[0].selection, 64) for seen in (both, alone))
        assert mine.shape[1] == 2
        assert torch.equal(mine[:, group], wanted[:, 0])
        assert torch.equal(wanted.expand(-1, 2, -1, -1)[:, 1], wanted[:, 0])


def test_four_patterns_of_a_deal_serve_four_heads_in_order():
    _, seen = observed(model_of("pattern.deal=near far far near"), tokens())
    masks = to_mask(seen[0].selection, 64)
    assert torch.equal(masks[:, 0], masks[:, 3]) and torch.equal(masks[:, 1], masks[:, 2])
    assert not torch.equal(masks[:, 0], masks[:, 1])


def test_dealt_patterns_that_keep_every_key_are_dense_attention():
    every = ["pattern@pattern.patterns.far=causal", "selector.k=64"]
    model = model_of(*every)
    sparse, _ = observed(model, tokens())
    with torch.no_grad():
        assert torch.equal(sparse, model.run(tokens(), Pass(sparse=False)).logits)


def test_backends_agree_on_dealt_patterns():
    logits = [observed(model_of(f"ops={ops}"), tokens())[0] for ops in ("auto", "blocked", "reference")]
    for other in logits[1:]:
        torch.testing.assert_close(logits[0], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", ["near far", "near far far near"])
def test_selections_of_each_key_value_head_go_with_any_deal(groups):
    _, seen = observed(model_of("selector=oracle_by_head", f"pattern.deal={groups}"), tokens())
    assert seen[0].selection.positions.shape[1] == 4


@pytest.mark.slow
def test_what_is_scored_counts_for_each_group():
    near, far = (
        flops(model_of(f"pattern.deal={name} {name}", f"~pattern.patterns.{other}"), 64, 0.5)["indexer"]
        for name, other in (("near", "far"), ("far", "near"))
    )
    assert flops(model_of(), 64, 0.5)["indexer"] == pytest.approx((near + far) / 2)


def test_the_picture_has_a_row_of_panels_for_each_group():
    assert len(selection_figure(model_of(), tokens()).axes) == 2 * 2


def test_a_pattern_that_has_groups_of_its_own_cannot_be_dealt():
    with pytest.raises(ValueError, match=r"pattern.patterns.far.patterns.*no class can be given there"):
        model_of("pattern@pattern.patterns.far=multi_head")
