"""Ways to save memory change where activations are kept, and no gradient."""

from contextlib import nullcontext

import pytest
import torch
from backbones.toy import GroupedQueries
from conftest import QUIET, SMALL
from torch.autograd.graph import saved_tensors_hooks

from dsa import build_model, compose
from dsa.backbones import Backbone, Memory, Pass, memory
from dsa.data import Batch
from dsa.judging.speed import peak_megabytes
from dsa.training.assemble import one_step
from dsa.training.execute import train
from dsa.training.objective import GradientKL, language_model_loss

WAYS = [Memory(), Memory(checkpoint=True), Memory(offload=True), Memory(checkpoint=True, offload=True)]
SELECTIONS = {
    "topk": ["selector.k=8", "index_every=2"],
    "random": ["selector=random", "selector.k=8"],
    "adaptive": ["selector=adaptive_entropy", "selector.min_k=4", "selector.max_k=12", "selector.target_mean=8"],
}


@pytest.fixture
def halves():
    return torch.randint(64, (4, 48), generator=torch.Generator().manual_seed(0)).chunk(2)


def built(*settings):
    return build_model(compose([*SMALL, "pattern=causal", "model.layers=4", *settings]), 64).train()


def gradients(model: Backbone, halves, way: Memory) -> dict[str, torch.Tensor]:
    """Of two passes that differ in tokens, step and progress, before one backward pass."""
    model.save_memory(way)
    model.train().zero_grad()
    losses = []
    for step, tokens in enumerate(halves, 1):
        with model.memory.saving():
            logits, own = model.run(tokens, Pass(teach=True, step=step, progress=step / 2))
            losses += [language_model_loss(logits, tokens), *own.values()]
    torch.stack(losses).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
@pytest.mark.parametrize("name", SELECTIONS)
def test_no_way_changes_a_bit_of_a_gradient(name, way, halves):
    torch.set_num_threads(1)
    model = built(*SELECTIONS[name])
    assert_same_bits(gradients(model, halves, way), gradients(model, halves, WAYS[0]))


def seen_twice(model: Backbone, halves) -> None:
    """Whether each layer selects when it is recomputed what it had selected for the same tokens."""
    model.save_memory(Memory(checkpoint=True))
    model.train()
    chosen: list[dict[int, list]] = [{}, {}]
    losses = []
    for number, tokens in enumerate(halves):
        observe = lambda seen, own=chosen[number]: own.setdefault(seen.layer, []).append(seen.selection.positions)
        logits, own = model.run(tokens, Pass(teach=True, step=number, observe=observe))
        losses += [language_model_loss(logits, tokens), *own.values()]
    torch.stack(losses).sum().backward()
    sites = range(len(model.sites))
    for site in sites:
        for each in chosen:
            assert len(each[site]) == 2 and torch.equal(*each[site])
    assert not all(torch.equal(chosen[0][site][0], chosen[1][site][0]) for site in sites)


@pytest.mark.parametrize("name", ["topk", "random"])
def test_a_layer_that_is_recomputed_selects_what_it_selected(name, halves):
    seen_twice(built(*SELECTIONS[name]), halves)


@pytest.mark.parametrize("ops", ["auto", "blocked", "reference"])
def test_each_layer_is_recomputed_once(ops, halves):
    model, runs = built("selector.k=8", f"ops={ops}"), []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda block, _: runs.append(block))
    gradients(model, halves[:1], Memory(checkpoint=True))
    assert [runs.count(block) for block in model.blocks] == [2] * 4


def test_the_gradient_that_keys_are_weighed_by_is_found_through_recomputed_layers(halves):
    model, batch = built(*SELECTIONS["topk"]), Batch(halves[0], halves[1])
    found = []
    for way in WAYS:
        model.save_memory(way)
        with model.memory.saving():
            found.append(GradientKL(1.0, True).emphasis(model, batch, Pass()))
    for other in found[1:]:
        assert all(torch.equal(own.upstream, found[0][site].upstream) for site, own in other.items())


def packed(monkeypatch, way: Memory, halves) -> list[torch.Size]:
    """Shapes of the tensors that go to the host."""
    shapes: list[torch.Size] = []
    keep = lambda x: shapes.append(x.shape) or x
    monkeypatch.setattr(memory, "save_on_cpu", lambda **_: saved_tensors_hooks(keep, lambda x: x))
    gradients(built("selector.k=8"), halves[:1], way)
    return shapes


def test_what_is_offloaded_is_all_or_the_inputs_of_recomputed_layers(monkeypatch, halves):
    hidden = torch.Size([2, 48, 32])
    assert packed(monkeypatch, WAYS[1], halves) == []
    every, inputs = (packed(monkeypatch, way, halves) for way in WAYS[2:])
    assert inputs.count(hidden) >= 4 and len(inputs) < len(every) / 4


def test_recomputing_layers_leaves_a_fraction_of_the_activations():
    model, tokens, peaks = built("model.ff=256", "selector.k=8"), torch.zeros(1, 512, dtype=torch.long), []
    for way in WAYS[:2]:
        model.save_memory(way)
        peaks.append(peak_megabytes(lambda: one_step(model, tokens, True, learns=True), tokens.device))
    assert peaks[1] < 0.6 * peaks[0]


def test_a_backbone_that_cannot_recompute_says_so():
    toy = object.__new__(GroupedQueries)
    with pytest.raises(ValueError, match=r"^memory\.checkpoint = true: GroupedQueries cannot recompute"):
        Backbone.save_memory(toy, Memory(checkpoint=True))
    Backbone.save_memory(toy, Memory(offload=True))
    assert isinstance(Memory().saving(), nullcontext)


@pytest.mark.slow
def test_a_run_has_the_same_name_and_numbers_whichever_way(tmp_path):
    small = [*SMALL, *QUIET, "steps=6", "dtype=fp32", "objective=gradient_kl"]
    ways = ([], ["memory=checkpoint", "memory.offload=true"])
    one, other = (train(compose([*small, *way, f"output_dir={tmp_path / str(len(way))}"])) for way in ways)
    assert (one.run_id, one.val_loss, one.swap_val_loss) == (other.run_id, other.val_loss, other.swap_val_loss)
