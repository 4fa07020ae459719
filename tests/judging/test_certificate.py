"""The certificate of a pretrained model: on as many tokens as a budget needs to act, loud where it finds a fault."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="the extra dsa[pretrained] is not installed")
from backbones.tiny_models import CONFIGS, made

from dsa import compose
from dsa.artifacts.results import RunResult
from dsa.backbones.pretrained import Adopted
from dsa.build import attach_routers, build_indexers
from dsa.judging.certificate import certify, most_kept
from dsa.judging.probe import observed
from dsa.training.caveats import uncertified, warnings_of


def certified(length, *overrides, ahead=0):
    """The certificate of a composition on a tiny model; its indexers read hidden states of so many tokens later."""
    spec, model = compose(["indexer=h2d8", *overrides]), Adopted(made(CONFIGS["llama"]()))
    attach_routers(spec, model, build_indexers(spec, model))
    for router in model.routers:
        own = router.indexer.score
        router.indexer.score = lambda x, rotary, own=own: own(x.roll(-ahead, 1), rotary)
    tokens = torch.randint(1, 64, (2, length), generator=torch.Generator().manual_seed(0))
    return certify(model, tokens, most_kept(observed(model, tokens)))


@pytest.mark.slow
@pytest.mark.parametrize("length", [112, 200])
def test_an_indexer_that_looks_ahead_is_caught_under_the_default_pattern(length):
    told, fair = certified(length, ahead=3), certified(length)
    assert told["causality"] > 0 == fair["causality"]
    assert told["acted"] == fair["acted"] == length - 96, "96 keys a query"
    assert fair["decode"] < 1e-3 and fair["identity"] < 1e-3 < fair["reach"]


@pytest.mark.parametrize(("k", "tokens"), [(8, 128), (64, 192), (100, 256)])
def test_so_many_tokens_are_looked_at_that_selection_acts_on_most(k, tokens):
    told = certified(256, "pattern=causal", f"selector.k={k}")
    assert (told["tokens"], told["acted"]) == (tokens, tokens - k)


GOOD = {
    "tokens": 128,
    "acted": 64,
    "identity": 1e-5,
    "causality": 0.0,
    "reach": 1.0,
    "decode": 1e-5,
    "reselected": 0,
    "ties": 0.0,
}


@pytest.mark.parametrize(
    ("change", "density", "said"),
    [
        ({}, 0.5, None),
        ({"causality": 1e-9}, 0.5, "looks ahead: other later tokens change an earlier logit by 1.0e-09"),
        ({"identity": 0.01}, 0.5, "with every key kept a logit is 1.0e-02 from the model's own"),
        ({"acted": 0}, 0.5, "on the 128 tokens of the certificate the selection left no key out"),
        ({"acted": 0}, 1.0, None),
        ({"decode": 0.009}, 0.5, None),
        ({"decode": 0.02}, 0.5, "token by token is not what one pass says: a logit is 2.0e-02 off, and 0 of its"),
        ({"decode": 0.01, "reselected": 1}, 0.5, None),
        ({"decode": 0.01, "reselected": 2}, 0.5, "a logit is 1.0e-02 off, and 2 of its selections are others"),
        ({"decode": 1e-5, "reselected": 2}, 0.5, "2 of its selections are others"),
        ({"decode": None, "reselected": None}, 0.5, None),
    ],
)
def test_what_a_certificate_finds_is_a_warning_of_the_run(change, density, said):
    result = RunResult("r", "finished", "s", {}, "m", "d", "r", 64, 0, density=density)
    assert uncertified(result) == [], "a model that was trained here has none"
    result.certificate = GOOD | change
    found = uncertified(result)
    assert found == [] if said is None else len(found) == 1 and said in found[0]
    spec = compose(["indexer=h2d8"])
    result.provenance = {"threads_of": {}}
    model = SimpleNamespace(routers=[], sites=[], parameters=lambda: iter([torch.ones(1)]))
    assert set(found) <= set(warnings_of(spec, result, model))


@pytest.mark.slow
def test_what_no_composition_changes_is_found_once_for_all_on_a_base(monkeypatch):
    model, passes = Adopted(made(CONFIGS["llama"]())), []
    run = Adopted.run
    monkeypatch.setattr(Adopted, "run", lambda self, text, how: passes.append(how.sparse) or run(self, text, how))
    tokens = torch.randint(1, 64, (1, 160), generator=torch.Generator().manual_seed(0))

    def told(*overrides):
        spec = compose(["pattern=causal", "selector.k=16", *overrides])
        attach_routers(spec, model, build_indexers(spec, model))
        passes.clear()
        found = certify(model, tokens, 16)
        return found, passes.count(False), len(passes)

    first, dense, count = told("indexer=h2d8")
    other, none, fewer = told("indexer=h1d8")
    assert (dense, none) == (1, 0) and fewer == count - 2, "its own logits, and those with every key kept"
    assert other["identity"] == first["identity"] and other["reach"] != first["reach"]
    with torch.no_grad():
        model.hf.lm_head.weight.mul_(2)
    changed, dense, _ = told("indexer=h1d8")
    assert dense == 1 and changed["reach"] == pytest.approx(2 * other["reach"], rel=1e-3)
