"""A cohort that is interrupted, or of which a member diverges, leaves the others what they are."""

import os
from pathlib import Path

import pytest
import torch

from dsa.artifacts.store import Store
from dsa.build import build_indexers
from dsa.training import cohort
from dsa.training.cohort import CohortTraining
from dsa.training.module import Training
from training.cohorts import (
    FEW,
    SEEDS,
    Killed,
    killed,
    make,
    rows,
    same,
    weights,
    wishes_of,
)


@pytest.mark.slow
def test_a_cohort_that_is_interrupted_goes_on_to_the_same_weights(based, alone, monkeypatch):
    wishes, data = wishes_of(FEW, based)
    begin, seen = Training.on_train_batch_start, []

    def dying(self, batch, batch_idx):
        seen.append(batch_idx)
        if batch_idx == 3:
            raise Killed
        begin(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_batch_start", dying)
        with pytest.raises(Killed):
            make(wishes, data)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "on_train_batch_start", lambda *given: (seen.append(given[2]), begin(*given)))
        assert make(wishes, data) == {}
    assert seen == [0, 1, 2, 3, 2, 3, 4, 5], "it goes on from its checkpoint after two steps"
    for member, wish in zip(FEW, wishes, strict=True):
        assert (same(weights(wish), alone(member)[0]), rows(wish)) == (True, alone(member)[1]), member


@pytest.mark.slow
def test_a_member_that_diverges_fails_alone(based, alone, monkeypatch):
    def poisoned(spec, backbone):
        out = build_indexers(spec, backbone)
        if spec.indexer_seed == 1:
            torch.nn.init.constant_(out[1].to_key.weight, float("nan"))
        return out

    monkeypatch.setattr(cohort, "build_indexers", poisoned)
    wishes, data = wishes_of(FEW, based)
    ill = FEW.index(SEEDS[0])
    failed = make(wishes, data)
    assert list(failed) == [wishes[ill][1].hash]
    assert "indexer_loss = nan at step 1 of stage warmup" in failed[wishes[ill][1].hash]
    store = Store(based)
    for index, (member, wish) in enumerate(zip(FEW, wishes, strict=True)):
        if index == ill:
            assert store.find(wish[1]) is None
        else:
            assert same(weights(wish), alone(member)[0]), member
    failed = make([wishes[ill]], data)
    assert "Give a smaller recipe.warmup.indexer_lr" in failed[wishes[ill][1].hash], "also where nobody is left"
    assert store.find(wishes[ill][1]) is None


@pytest.mark.slow
def test_a_member_that_diverged_before_an_interruption_stays_failed(based, monkeypatch):
    wishes, data = wishes_of(FEW[:2], based)
    losses, begin = CohortTraining.site_losses, Training.on_train_batch_start

    def bursting(self, *given):
        found = losses(self, *given)
        first = next(iter(found))
        return found | {first: found[first] * (float("inf") if self.global_step == 0 else 1.0)}

    def dying(self, batch, batch_idx):
        if batch_idx == 3:
            raise Killed
        begin(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(CohortTraining, "site_losses", bursting)
        patch.setattr(Training, "on_train_batch_start", dying)
        with pytest.raises(Killed):
            make(wishes, data)
    failed = make(wishes, data)
    assert list(failed) == [wishes[0][1].hash]
    assert [Store(based).find(need) is None for _, need in wishes] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before a member is published", "amid publishing a member"])
def test_a_kill_between_the_end_of_training_and_publishing_loses_nothing(where, based, alone, monkeypatch):
    wishes, data = wishes_of(FEW, based)
    published, publish, replace = [], Store.publish, os.replace

    def counted(self, *given):
        published.append(given)
        if len(published) == 2 and where.startswith("before"):
            raise Killed
        return publish(self, *given)

    def no_rename(source, target):
        return killed() if len(published) == 2 and Path(source).is_dir() else replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", counted)
        patch.setattr(os, "replace", no_rename)
        with pytest.raises(Killed):
            make(wishes, data)
    found = [Store(based).find(need) is not None for _, need in wishes]
    assert sum(found) == 1
    with monkeypatch.context() as patch:
        patch.setattr(cohort, "fit", lambda *_, **__: pytest.fail("trained again"))
        assert make(wishes, data) == {}
    for member, wish in zip(FEW, wishes, strict=True):
        assert same(weights(wish), alone(member)[0]), member
    assert not list(cohort.cohort_place(Store(based)).iterdir())
