"""Patterns that choose among others: what is shown, drawn, learned and counted."""

from types import SimpleNamespace

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import build_model, compose, train
from dsa.backbones import Pass
from dsa.judging.cost import flops, parameters
from dsa.judging.probe import probe
from dsa.ops import Hash, Zone, blocked, native, reference, select_chosen
from dsa.training.captured import missed
from dsa.training.module import Training

SIZES = [
    "pattern.patterns.near.window=4", "pattern.patterns.near.budget=9", "pattern.patterns.all.budget=9",
    "pattern.patterns.sinks.window=4", "pattern.patterns.sinks.budget=9",
]  # fmt: skip
LEARNED = ["pattern=learned", *SIZES]
SPELLED = {
    "near": ["pattern=local_global", "pattern.window=4", "pattern.budget=9"],
    "all": ["pattern=causal", "pattern.budget=9"],
    "sinks": ["pattern=local_global_sinks", "pattern.window=4", "pattern.budget=9"],
}


def model_of(*overrides):
    return build_model(compose([*SMALL, "indexer=h1d8", *overrides]), 64).eval()


def tokens(seed=0):
    return torch.randint(64, (2, 64), generator=torch.Generator().manual_seed(seed))


def prefer(model, *entries):
    """Let each group of every layer prefer an entry."""
    for router in model.routers:
        names = router.pattern.names
        for group, entry in enumerate(entries):
            router.pattern.preference.data[group] = torch.tensor([float(name == entry) for name in names])
    return model


@torch.no_grad()
def choices(model, how, rows=2):
    found = {}
    drawn = torch.randint(64, (rows, 8), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model.run(drawn, Pass(chose=found.__setitem__, **how))
    return found


@pytest.mark.parametrize("backend", [reference, blocked, native])
@pytest.mark.parametrize("groups", [1, 2])
def test_each_query_keeps_what_its_own_entry_of_the_library_shows(backend, groups):
    if backend is native and native.unavailable() is not None:
        pytest.skip(str(native.unavailable()))
    library = [(Zone(None),), (Zone(3, keep="all"), Zone(None, 4, 3)), (Zone(20),)]
    entry = torch.randint(3, (2, groups, 50), generator=torch.Generator().manual_seed(1))
    limit = torch.randint(12, (2, groups, 50), generator=torch.Generator().manual_seed(2))
    chosen = select_chosen(Hash(3), library, entry, limit, backend=backend.name)
    masks = torch.stack([reference.to_mask(reference.select(Hash(3), zones, limit), 50) for zones in library])
    wanted = masks.gather(0, entry[None, ..., None].expand(1, -1, -1, -1, 50))[0]
    assert torch.equal(reference.to_mask(chosen, 50), wanted)
    assert torch.equal(chosen.counts.long(), wanted.sum(-1))


@pytest.mark.parametrize("name", ["near", "all", "sinks"])
def test_a_preferred_pattern_attends_as_it_would_alone(name):
    with torch.no_grad():
        assert torch.equal(prefer(model_of(*LEARNED), name, name)(tokens()), model_of(*SPELLED[name])(tokens()))


def test_before_anything_is_learned_the_default_is_shown():
    with torch.no_grad():
        assert torch.equal(model_of(*LEARNED)(tokens()), model_of(*SPELLED["near"])(tokens()))
        other = model_of(*LEARNED, "pattern.default=all")
        assert torch.equal(other(tokens()), model_of(*SPELLED["all"])(tokens()))


def test_groups_of_heads_choose_apart_and_the_probe_says_what():
    (first, _) = probe(prefer(model_of(*LEARNED), "sinks", "all"), tokens())
    assert first.chosen == [{"near": 0.0, "all": 0.0, "sinks": 1.0}, {"near": 0.0, "all": 1.0, "sinks": 0.0}]


def test_in_training_entries_are_drawn_from_their_softmax_and_less_at_random_when_it_is_colder():
    model = model_of(*LEARNED, "pattern.hot=4", "pattern.cold=1")
    for router in model.routers:
        router.pattern.preference.data[:] = torch.tensor([0.0, 0.0, 0.1])
    for progress, temperature in ((0.0, 4.0), (0.5, 2.0), (1.0, 1.0)):
        wanted = (torch.tensor([0.0, 0.0, 2.0]) / temperature).softmax(0)
        drawn = [s for c in choices(model, {"step": 1, "progress": progress}, 400).values() for s in c.shares()]
        found = torch.tensor([list(share.values()) for share in drawn]).mean(0)
        torch.testing.assert_close(found, wanted, atol=0.06, rtol=0)
    assert all(share["sinks"] == 1 for c in choices(model, {}).values() for share in c.shares())


def test_the_language_model_loss_reaches_preferences_through_a_gate_that_is_1():
    model = model_of(*LEARNED)
    logits, losses = model.run(tokens(), Pass(teach=True))
    losses["indexer"].backward(retain_graph=True)
    assert all(p.grad is None for p in model.groups()["patterns"])
    logits.square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.groups()["patterns"])
    assert all(bool((c.gate == 1).all()) for c in choices(model, {}).values())
    assert {id(p) for p in model.groups()["patterns"]}.isdisjoint(id(p) for p in model.groups()["backbone"])


@pytest.mark.parametrize("entry", ["near", "all", "sinks"])
def test_with_a_budget_of_the_whole_length_a_choice_is_dense_attention(entry):
    model = prefer(model_of(*LEARNED, "selector.k=64"), entry, "all")
    with torch.no_grad():
        assert torch.equal(model(tokens()), model.run(tokens(), Pass(sparse=False)).logits)


@pytest.mark.parametrize("selector", ["topk", "adaptive_entropy", "oracle_by_head", "progressive_linear"])
def test_backends_agree_on_choices_under_every_kind_of_selector(selector):
    own = ["selector.min_k=2", "selector.max_k=9"] if selector == "adaptive_entropy" else []
    found = []
    for ops in ("auto", "blocked", "reference"):
        model = prefer(model_of(*LEARNED, f"selector={selector}", *own, f"ops={ops}"), "near", "sinks")
        with torch.no_grad():
            found.append(model(tokens()))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-4, atol=1e-5)


def test_what_is_expected_to_be_missed_falls_with_the_share_of_what_captures_most():
    captured = torch.tensor([0.2, 0.9, 0.4]).expand(2, 1, 5, 3)
    assert missed(torch.zeros(2, 1, 5, 3), captured).item() == pytest.approx(0.5)
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    missed(logits.expand(2, 1, 5, 3), captured).backward()
    assert logits.grad.flatten().argmin() == 1 and logits.grad.flatten().argmax() == 0


def test_costs_are_those_of_what_was_chosen():
    alone = {name: flops(model_of(*own), 64, 0.5)["indexer"] for name, own in SPELLED.items()}
    model = model_of(*LEARNED)
    shares = [{"near": 0.25, "all": 0.75, "sinks": 0.0}, {"near": 0.0, "all": 0.0, "sinks": 1.0}]
    wanted = 0.25 * alone["near"] + 0.75 * alone["all"] + alone["sinks"]
    scored = flops(model, 64, 0.5, {0: shares, 1: shares})["indexer"]
    projections = alone["all"] - 2 * (2 * 8 + 3) * (64 * 65 // 2)
    assert scored == pytest.approx(wanted - projections)
    assert parameters(model)["pattern"] == 2 * 2 * 3


def test_each_process_and_each_step_draws_apart():
    def drawn(step, rank=0, processes=1):
        training = SimpleNamespace(accumulate=1, data=SimpleNamespace(seed=0), stage=SimpleNamespace(name="sparse"),
                                   trainer=SimpleNamespace(world_size=processes), global_rank=rank,
                                   device=torch.device("cpu"))  # fmt: skip
        Training.on_train_batch_start(training, None, step)
        return torch.rand(1).item()

    assert len({drawn(step, rank, 2) for step in range(3) for rank in range(2)}) == 6
    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.slow
def test_under_a_control_a_run_says_that_its_pattern_learned_nothing_in_the_warm_up(outputs):
    settings = ["seq_len=32", "selector=random", "recipe=judge", "recipe.dense.steps=1", "recipe.warmup.steps=1"]
    result = train(compose([*SMALL, *QUIET, *LEARNED, *settings, f"output_dir={outputs}"]))
    assert result.selection["layers"][0]["chosen"] == 2 * [{"near": 1.0, "all": 0.0, "sinks": 0.0}]
    assert any("selector random ranks keys without an indexer, beside which learned~" in w for w in result.warnings)
