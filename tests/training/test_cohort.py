"""Indexers trained side by side become what each becomes alone, whatever happens to the others."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL, fitting, indexers
from forked import launch

from dsa import compose
from dsa.artifacts.store import Store
from dsa.build import build_backbone, build_data, build_indexers
from dsa.graph import graph_of
from dsa.judging.checkpoints import fit_weights, read_weights
from dsa.judging.models import Models
from dsa.training import cohort
from dsa.training.base import make_base
from dsa.training.cohort import CohortTraining, make_indexers
from dsa.training.dashboard import Dashboard
from dsa.training.joint import start_of
from dsa.training.log import read_rows
from dsa.training.module import Training

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    *SMALL, *QUIET, "seq_len=32", "dtype=fp32", "pattern=causal", "recipe.dense.steps=2", "recipe.warmup.steps=6",
    "recipe.sparse.steps=0", "callbacks.checkpoint_every=2",
]  # fmt: skip
SIZES = {f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (1, 2, 4, 8, 16, 32, 64)} - {"h1d1", "h4d64"}
EVERY = [fitting("indexer", name) for name in indexers() if name not in SIZES]  # one kind: the ends of it
SEEDS = [["indexer=h2d8", f"indexer_seed={seed}"] for seed in (1, 2)]
SHARED = ["indexer=h2d8", "index_every=2"]
LEARNED = [
    "indexer=h2d8", "pattern=learned", "pattern.patterns.near.window=2", "pattern.patterns.near.budget=4",
    "pattern.patterns.all.budget=8", "pattern.patterns.sinks.window=2", "pattern.patterns.sinks.budget=6",
]  # fmt: skip
FEW = [["indexer=h1d8"], ["indexer=ultra_light"], *SEEDS, SHARED, LEARNED]


class Killed(SystemExit):
    """Stands for a kill: nothing is written any more, as after any interruption."""


def killed(*_args, **_named):
    raise Killed


def wishes_of(members, outputs):
    """The specs of these members, with what names their indexers."""
    data = build_data(compose(RUN))
    specs = [compose([*RUN, *member, f"output_dir={outputs}"]) for member in members]
    return [(spec, graph_of(spec, data.fingerprint).indexers) for spec in specs], data


def make(wishes, data):
    """Train the members of a cohort whose base is there."""
    spec = wishes[0][0]
    return make_indexers(Store(spec.outputs), wishes, data, Dashboard(spec, "cohort", "dense", "cohort", silent=True))


def weights(wish):
    spec, need = wish
    return read_weights(Store(spec.outputs).folder(need))


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An output folder that holds the base alone."""
    outputs = tmp_path_factory.mktemp("base")
    ((spec, need),), data = wishes_of([["indexer=h1d8"]], outputs)
    make_base(Store(outputs), spec, need.base, data, Dashboard(spec, "base", "dense", "base", silent=True))
    return outputs


@pytest.fixture
def outputs(base, tmp_path):
    """A copy of it."""
    return shutil.copytree(base, tmp_path / "outputs")


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """Weights of a member, and the rows of its record, trained by itself."""
    found = {}

    def of(member):
        key = tuple(member)
        if key not in found:
            outputs = shutil.copytree(base, tmp_path_factory.mktemp("alone") / "outputs")
            (wish,), data = wishes_of([member], outputs)
            assert make([wish], data) == {}
            found[key] = weights(wish), rows(wish)
        return found[key]

    return of


def rows(wish):
    """What a member's record says of its training, less how long it took."""
    spec, need = wish
    path = Store(spec.outputs).folder(need) / "metrics.csv"
    every = read_rows(path) if path.exists() else []
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in every]


@pytest.mark.slow
def test_every_kind_of_indexer_becomes_in_a_cohort_what_it_becomes_alone(outputs, alone):
    members = [[*member, "recipe.warmup.steps=3"] for member in (*EVERY, SHARED, *SEEDS)]
    wishes, data = wishes_of(members, outputs)
    assert make(wishes, data) == {}
    for member, wish in zip(members, wishes, strict=True):
        assert (same(weights(wish), alone(member)[0]), rows(wish)) == (True, alone(member)[1]), member
    assert not same(weights(wishes[-1]), weights(wishes[-2])), "another seed is another indexer"


@pytest.mark.slow
def test_indexers_of_which_a_router_picks_become_what_each_becomes_alone(outputs, alone):
    one = ["indexer=dynamic", "indexer.members=[h1d8,h2d8]", "indexer.weight=signed", "indexer.prefix=16"]
    wishes, data = wishes_of([one], outputs)
    assert make(wishes, data) == {}
    found = weights(wishes[0])
    for name in ("h1d8", "h2d8"):
        own, record = alone([f"indexer={name}"])
        part = f".members.{name}."
        assert same({key.replace(part, "."): value for key, value in found.items() if part in key}, own)
        losses = [row[f"train/indexer_{name}_loss"] for row in rows(wishes[0])]
        assert losses == [row["train/indexer_loss"] for row in record]
    assert any(value.abs().sum() > 0 for key, value in found.items() if "router.weight" in key)


@pytest.mark.slow
def test_members_of_unequal_warm_ups_each_get_their_own(outputs, alone):
    members = [FEW[0], *([*FEW[0], setting] for setting in ("recipe.warmup.steps=4", "recipe.warmup.indexer_lr=0.01"))]
    members.append([*FEW[0], "recipe.warmup.steps=0", "recipe.sparse.steps=2"])
    wishes, data = wishes_of(members, outputs)
    assert make(wishes, data) == {}
    for member, wish in zip(members, wishes, strict=True):
        assert (same(weights(wish), alone(member)[0]), rows(wish)) == (True, alone(member)[1]), member


@pytest.mark.slow
def test_a_cohort_that_is_interrupted_goes_on_to_the_same_weights(outputs, alone, monkeypatch):
    wishes, data = wishes_of(FEW, outputs)
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
def test_a_member_that_diverges_fails_alone(outputs, alone, monkeypatch):
    def poisoned(spec, backbone):
        out = build_indexers(spec, backbone)
        if spec.indexer_seed == 1:
            torch.nn.init.constant_(out[1].to_key.weight, float("nan"))
        return out

    monkeypatch.setattr(cohort, "build_indexers", poisoned)
    wishes, data = wishes_of(FEW, outputs)
    ill = FEW.index(SEEDS[0])
    failed = make(wishes, data)
    assert list(failed) == [wishes[ill][1].hash]
    assert "indexer_loss = nan at step 1 of stage warmup" in failed[wishes[ill][1].hash]
    store = Store(outputs)
    for index, (member, wish) in enumerate(zip(FEW, wishes, strict=True)):
        if index == ill:
            assert store.find(wish[1]) is None
        else:
            assert same(weights(wish), alone(member)[0]), member
    failed = make([wishes[ill]], data)
    assert "Give a smaller recipe.warmup.indexer_lr" in failed[wishes[ill][1].hash], "also where nobody is left"
    assert store.find(wishes[ill][1]) is None


@pytest.mark.slow
def test_a_member_that_diverged_before_an_interruption_stays_failed(outputs, monkeypatch):
    wishes, data = wishes_of(FEW[:2], outputs)
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
    assert [Store(outputs).find(need) is None for _, need in wishes] == [True, False]


@pytest.mark.slow
def test_the_warm_up_leaves_the_base_as_it_is(outputs, monkeypatch):
    wishes, data = wishes_of(FEW[:2], outputs)
    place, fit, seen = Store(outputs).folder(wishes[0][1].base), cohort.fit, []
    before = (place / "weights.ckpt").read_bytes()
    monkeypatch.setattr(cohort, "fit", lambda spec, module, *given, **named: (
        fit(spec, module, *given, **named), seen.append(module),
    ))  # fmt: skip
    make(wishes, data)
    (module,) = seen
    assert all(p.grad is None and not p.requires_grad for p in module.model.parameters())
    assert same(module.model.state_dict(), read_weights(place))
    assert (place / "weights.ckpt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before a member is published", "amid publishing a member"])
def test_a_kill_between_the_end_of_training_and_publishing_loses_nothing(where, outputs, alone, monkeypatch):
    wishes, data = wishes_of(FEW, outputs)
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
    found = [Store(outputs).find(need) is not None for _, need in wishes]
    assert sum(found) == 1
    with monkeypatch.context() as patch:
        patch.setattr(cohort, "fit", lambda *_, **__: pytest.fail("trained again"))
        assert make(wishes, data) == {}
    for member, wish in zip(FEW, wishes, strict=True):
        assert same(weights(wish), alone(member)[0]), member
    assert not list(cohort.cohort_place(Store(outputs)).iterdir())


DISTRIBUTED = """
import sys

import torch

sys.path.insert(0, {tests!r})
from test_cohort import FEW, RUN, make, wishes_of

RUN += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
assert make(*wishes_of(FEW, {outputs!r})) == {{}}
assert torch.distributed.get_world_size() == 2
"""


@pytest.mark.slow
def test_two_processes_train_the_cohort_that_one_process_trains(outputs, alone, tmp_path):
    script = tmp_path / "cohort.py"
    script.write_text(DISTRIBUTED.format(tests=str(Path(__file__).parent), outputs=str(outputs)))
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = launch([sys.executable, str(script)], environment, tmp_path)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == 0, text
    wishes, _ = wishes_of(FEW, outputs)
    for member, wish in zip(FEW, wishes, strict=True):
        expected = alone(member)[0]
        for name, weight in weights(wish).items():
            torch.testing.assert_close(weight, expected[name], atol=2e-5, rtol=0, msg=f"{member}: {name}")


@pytest.mark.slow
def test_a_pattern_that_learns_leaves_its_indexer_as_it_would_be_and_finds_what_captures_most(alone):
    plain, (learned, rows) = alone(["indexer=h2d8"])[0], alone(LEARNED)
    own = {name: weight for name, weight in learned.items() if not name.startswith("patterns.")}
    assert same(own, plain)
    losses = [float(row["train/pattern_loss"]) for row in rows]
    assert losses[-1] < losses[0] and all(0 < loss < 1 for loss in losses)
    for site in range(2):
        near, every, sinks = learned[f"patterns.{site}.preference"].T
        assert bool((every > near).all() and (every > sinks).all()), "it keeps twice as many keys"


@pytest.mark.slow
@pytest.mark.parametrize("member", [LEARNED, [*LEARNED, "index_every=2"]], ids=["each", "shared"])
def test_what_the_cohort_taught_a_pattern_is_judged_and_where_joint_training_begins(outputs, member):
    (wish,), data = wishes_of([[*member, "recipe.sparse.steps=2"]], outputs)
    assert make([wish], data) == {}
    spec, graph = wish[0], graph_of(wish[0], data.fingerprint)
    models = Models(Store(outputs), data.vocab_size)
    judged = (lambda: models.of(spec, graph.swap), lambda: models.of(spec, graph.window))
    for make_model in (*judged, lambda: start_of(Store(outputs), spec, graph.joint, data)):
        model = make_model()
        found = {f"patterns.{n}.preference": router.pattern.preference for n, router in enumerate(model.routers)}
        assert same(found, {name: weight for name, weight in weights(wish).items() if name.startswith("patterns.")})
        assert any(weight.any() for weight in found.values())


@pytest.mark.parametrize("setting", ["hot=2", "default=all", "groups=1", "patterns.near.budget=5"])
def test_indexers_are_stale_when_a_setting_of_a_pattern_that_learns_beside_them_changes(setting):
    members = LEARNED, [*LEARNED, f"pattern.{setting}"], ["indexer=h2d8"]
    before, after, fixed = (graph_of(compose([*RUN, *member]), "corpus") for member in members)
    assert len({before.indexers.hash, after.indexers.hash, fixed.indexers.hash}) == 3
    assert before.base.hash == after.base.hash and before.window.hash != after.window.hash
    assert {"dsa.patterns.Learned", "dsa.patterns.Causal"} <= set(before.indexers.roots)


def test_every_member_of_a_cohort_has_a_curve_of_its_own():
    members = [["indexer=h1d8"], *(["indexer=h1d8", f"indexer.weight={weight}"] for weight in ("positive", "none"))]
    members += [LEARNED, [*LEARNED, "pattern.groups=1"], ["indexer=h1d8", "index_every=2"]]
    labels = [compose([*RUN, *member]).indexer_label for member in members]
    assert len({*labels}) == len(members) and labels[0] == "h1d8" and labels[-1] == "h1d8-every2"


def initial(*settings):
    """Initial weights of the indexers that a configuration describes, by site and name."""
    spec = compose([*RUN, "indexer=h2d8", *settings])
    indexers = build_indexers(spec, build_backbone(spec, 64))
    return {(site, name): p for site, one in enumerate(indexers) for name, p in one.named_parameters()}


@pytest.mark.parametrize(
    "other",
    [
        ["seed=3", "indexer_seed=0"], ["model.layers=3"], ["model.heads=4", "model.ff=32"], ["pattern=strided"],
        ["precision=int4"], ["selector=ratio_10"],
    ],
)  # fmt: skip
def test_initial_weights_follow_from_seed_site_and_name_alone(other):
    plain, changed = initial(), initial(*other)
    assert all(torch.equal(changed[key], plain[key]) for key in plain)


def test_another_site_or_seed_gives_other_initial_weights():
    plain, seeded = initial(), initial("indexer_seed=1")
    key = "to_key.weight"
    assert not torch.equal(plain[0, key], plain[1, key])
    assert not torch.equal(plain[0, key], seeded[0, key])


def test_joint_training_from_scratch_begins_with_the_same_indexers(tmp_path):
    data = build_data(compose(RUN))
    steps = ["recipe.dense.steps=0", "recipe.warmup.steps=0", "recipe.sparse.steps=2"]
    spec = compose([*RUN, *steps, "indexer=h2d8", "seed=3", "indexer_seed=0", "pattern=strided"])
    model = start_of(Store(tmp_path), spec, graph_of(spec, data.fingerprint).joint, data)
    for (site, name), expected in initial().items():
        assert torch.equal(model.routers[site].indexer.get_parameter(name), expected), (site, name)


@pytest.mark.slow
def test_joint_training_begins_with_what_the_cohort_made(outputs):
    (wish,), data = wishes_of([["indexer=h2d8", "recipe.sparse.steps=2"]], outputs)
    make([wish], data)
    spec = wish[0]
    model = start_of(Store(outputs), spec, graph_of(spec, data.fingerprint).joint, data)
    trained = build_indexers(spec, model)
    for site, indexer in enumerate(trained):
        own = {n.split(".", 1)[1]: w for n, w in weights(wish).items() if n.startswith(f"{site}.")}
        fit_weights(indexer, own, outputs)
        assert same(model.routers[site].indexer.state_dict(), indexer.state_dict())
