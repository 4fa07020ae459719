"""A router keeps what its pattern shows from one pass to the next, and asks again where the question is another."""

import pytest
import torch

from dsa import build_model, compose
from dsa.backbones import Pass
from dsa.patterns import Pattern

CPU = torch.device("cpu")


@pytest.fixture
def model():
    return build_model(
        compose(["model=mqar", "seq_len=64", "indexer=h1d8", "pattern=local_global", "selector.k=8"]), 64
    )


def test_the_same_question_is_asked_once(model, monkeypatch):
    asked, visible = [], Pattern.visible
    monkeypatch.setattr(Pattern, "visible", lambda *given: asked.append(given[1]) or visible(*given))
    tokens = torch.randint(64, (2, 40))
    model(tokens)
    first = len(asked)
    model(tokens)
    assert first >= len(model.routers) and len(asked) == first
    model(tokens[:, :30])
    assert len(asked) == 2 * first and {len(time) for time in asked} == {40, 30}


@pytest.mark.parametrize(("offset", "length"), [(0, 40), (7, 40), (0, 41), (40, 1)])
def test_another_place_or_length_has_an_answer_of_its_own(model, offset, length):
    router = model.router(0)
    router.view(0, 40, CPU)
    view, time = router.view(offset, length, CPU), torch.arange(offset, offset + length)
    assert view.time.equal(time)
    assert view.seen[0].equal(router.pattern.visible(time)) and view.own[0].equal(router.pattern.own_budget(time))


def test_another_pattern_has_an_answer_of_its_own(model):
    router = model.router(0)
    before = router.view(0, 40, CPU)
    router.pattern = compose(["pattern=strided_4"]).pattern.make()
    now = router.view(0, 40, CPU).seen[0]
    assert now.equal(router.pattern.visible(torch.arange(40))) and not now.equal(before.seen[0])


def test_what_an_evaluation_left_serves_a_step_that_learns(model):
    tokens = torch.randint(64, (2, 40))
    with torch.inference_mode():
        model(tokens)
    view = model.router(0).view(0, 40, CPU)
    assert not any(x.is_inference() for x in (view.time, *view.seen, *view.own))
    out = model.train().run(tokens, Pass(teach=True))
    (out.logits.square().mean() + out.losses["indexer"]).backward()
    assert model.blocks[0].attention.to_qkv.weight.grad.any()
