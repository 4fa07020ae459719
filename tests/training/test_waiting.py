"""A step of training asks the device once what it computed, and for the faults that kernels found in it."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch

from dsa.backbones import Memory
from dsa.ops import faults
from dsa.ops.scores import report_nan
from dsa.training.module import Training
from dsa.training.stages import Group


def module():
    """What a step uses of a stage of training: two losses, two groups of parameters."""
    groups = []
    for name in ("backbone", "indexers"):
        weight = torch.nn.Parameter(torch.ones(3))
        weight.grad = torch.full((3,), 2.0)
        groups.append(Group(name, [weight], 0.1, "recipe.lr"))
    sums = {"loss": torch.tensor(3.0), "indexer_loss": torch.tensor(0.5)}
    return SimpleNamespace(learning=groups, sums=sums, row={"pattern_00": 0.5}, recipe=SimpleNamespace(clip=1.0))


def test_losses_of_micro_batches_are_summed_without_asking_for_them():
    """Tensors of the device "meta" have no numbers."""
    losses = {"loss": torch.ones((), device="meta")}
    model = SimpleNamespace(memory=Memory())
    own = SimpleNamespace(model=model, losses=lambda batch: losses, weight=lambda name: 2.0, accumulate=2, sums={})
    for number in range(2):
        assert Training.training_step(own, None, number).is_meta
    assert own.sums["loss"].is_meta


def test_losses_and_norms_are_read_at_once(monkeypatch):
    reads = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        found = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, name=name, found=found: (reads.append(name), found(x))[1])
    own = module()
    norms = Training.clipped(own)
    assert reads == ["tolist"]
    assert norms == pytest.approx([12**0.5] * 2)
    norm = pytest.approx(12**0.5)
    assert own.row == {
        "pattern_00": 0.5, "loss": 3.0, "indexer_loss": 0.5, "grad_norm_backbone": norm, "grad_norm_indexers": norm
    }  # fmt: skip
    assert own.learning[0].parameters[0].grad.norm() == pytest.approx(1.0)


def test_a_fault_that_is_still_on_its_way_is_reported_before_anything_moves(monkeypatch):
    monkeypatch.setattr(faults, "findings", deque())
    monkeypatch.setattr(faults, "arrived", lambda finding: False)
    faults.watch(torch.tensor([3, 7]), report_nan)
    with pytest.raises(FloatingPointError, match="3 are NaN, the first for query 7"):
        Training.clipped(module())
    assert not faults.findings
