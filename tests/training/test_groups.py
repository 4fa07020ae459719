"""Joint training minimises two losses, and neither reaches, scales or slows what the other one trains."""

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import compose
from dsa.artifacts.store import Store
from dsa.build import build_data
from dsa.graph import graph_of
from dsa.judging.checkpoints import read_weights
from dsa.training import objective
from dsa.training.dashboard import Dashboard
from dsa.training.joint import make_joint, start_of
from dsa.training.log import read_rows

pytestmark = pytest.mark.slow
LR = {"backbone": 0.5, "indexers": 0.25}
RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "selector.k=6", "indexer=h2d8", "recipe=scratch",
    "recipe.sparse.steps=1", f"recipe.sparse.lr={LR['backbone']}", f"recipe.sparse.indexer_lr={LR['indexers']}",
    "optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.weight_decay", "~optimizer.fused",
]  # fmt: skip
HUGE = 1e6


def one_step(outputs, *settings):
    """How far each group's weights went in one step of plain gradient descent, and what the log says of it."""
    spec = compose([*RUN, *settings, f"output_dir={outputs}"])
    data, store = build_data(spec), Store(spec.outputs)
    need = graph_of(spec, data.fingerprint).joint
    before = start_of(store, spec, need, data).state_dict()
    made = make_joint(store, spec, need, data, Dashboard(spec, "joint", "joint", "joint", silent=True), again=True)
    moved = {name: weight - before[name] for name, weight in read_weights(made.folder).items()}
    groups = {"indexers": {}, "backbone": {}}
    for name, weight in moved.items():
        groups["indexers" if name.startswith("routers.") else "backbone"][name] = weight
    row = next(row for row in read_rows(made.folder / "metrics.csv") if row["kind"] == "train")
    return groups, {name: float(value) for name, value in row.items() if name.startswith("train/")}


def length(weights):
    return torch.cat([weight.flatten() for weight in weights.values()]).norm().item()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def huge_language_model_loss(monkeypatch):
    """The language model's loss, and with it the backbone's gradient, a million times as large."""
    loss = objective.language_model_loss

    def times(factor):
        monkeypatch.setattr(objective, "language_model_loss", lambda *given: loss(*given) * factor)

    return times


def test_a_huge_loss_of_the_indexers_leaves_the_backbones_step_as_it_is(tmp_path):
    plain, row = one_step(tmp_path / "plain", "recipe.clip=0.01")
    huge, loud = one_step(tmp_path / "huge", "recipe.clip=0.01", f"objective.weight={HUGE}")
    assert same(huge["backbone"], plain["backbone"])
    assert loud["train/grad_norm_indexers"] == pytest.approx(HUGE * row["train/grad_norm_indexers"], rel=1e-4)
    assert loud["train/grad_norm_backbone"] == row["train/grad_norm_backbone"]
    assert length(huge["indexers"]) == pytest.approx(0.01 * LR["indexers"], rel=1e-3)


def test_a_huge_loss_of_the_language_model_leaves_the_indexers_step_as_it_is(tmp_path, huge_language_model_loss):
    plain, row = one_step(tmp_path / "plain", "recipe.clip=0.01")
    huge_language_model_loss(HUGE)
    huge, loud = one_step(tmp_path / "huge", "recipe.clip=0.01")
    assert same(huge["indexers"], plain["indexers"])
    assert loud["train/grad_norm_backbone"] == pytest.approx(HUGE * row["train/grad_norm_backbone"], rel=1e-3)
    assert loud["train/grad_norm_indexers"] == row["train/grad_norm_indexers"]
    assert length(huge["backbone"]) == pytest.approx(0.01 * LR["backbone"], rel=1e-3)


def test_each_group_has_its_own_rate_and_its_losses_a_name(tmp_path):
    moved, row = one_step(tmp_path, f"recipe.clip={HUGE}")
    for group, lr in LR.items():
        assert row[f"train/lr_{group}"] == lr
        assert length(moved[group]) == pytest.approx(lr * row[f"train/grad_norm_{group}"], rel=1e-3)
    assert row["train/loss"] > 0 and row["train/indexer_loss"] > 0


def test_indexers_that_are_not_taught_stay_as_they_are(tmp_path):
    moved, row = one_step(tmp_path, "objective.train_when_sparse=false")
    assert not any(weight.any() for weight in moved["indexers"].values())
    assert length(moved["backbone"]) > 0
    assert "train/indexer_loss" not in row
