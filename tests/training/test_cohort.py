"""Indexers trained side by side become what each becomes alone, whatever happens to the others."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from forked import launch

from dsa import compose
from dsa.artifacts.store import Store
from dsa.build import build_backbone, build_data, build_indexers
from dsa.graph import graph_of
from dsa.judging.checkpoints import fit_weights, read_weights
from dsa.judging.models import Models
from dsa.training import cohort
from dsa.training.base import make_base
from dsa.training.dashboard import Dashboard
from dsa.training.joint import start_of
from training.cohorts import (
    AGAIN,
    EVERY,
    FEW,
    LEARNED,
    RUN,
    SEEDS,
    SHARED,
    TWENTY,
    make,
    rows,
    same,
    weights,
    wishes_of,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_kind_of_indexer_becomes_in_a_cohort_what_it_becomes_alone(based, alone):
    members = [[*member, "recipe.warmup.steps=3"] for member in (*EVERY, SHARED, *SEEDS)]
    wishes, data = wishes_of(members, based)
    assert make(wishes, data) == {}
    for member, wish in zip(members, wishes, strict=True):
        assert (same(weights(wish), alone(member)[0]), rows(wish)) == (True, alone(member)[1]), member
    assert not same(weights(wishes[-1]), weights(wishes[-2])), "another seed is another indexer"


@pytest.mark.slow
def test_indexers_of_which_a_picker_takes_one_become_what_each_becomes_alone(based, alone):
    one = ["indexer=dynamic", "indexer.members=[h1d8,h2d8]", "indexer.weight=signed", "indexer.prefix=16"]
    wishes, data = wishes_of([one], based)
    assert make(wishes, data) == {}
    found = weights(wishes[0])
    for name in ("h1d8", "h2d8"):
        own, record = alone([f"indexer={name}"])
        part = f".members.{name}."
        assert same({key.replace(part, "."): value for key, value in found.items() if part in key}, own)
        losses = [row[f"train/indexer_{name}_loss"] for row in rows(wishes[0])]
        assert losses == [row["train/indexer_loss"] for row in record]
    assert any(value.abs().sum() > 0 for key, value in found.items() if "picker.weight" in key)


@pytest.mark.slow
def test_in_bf16_the_base_is_held_in_bf16_and_members_become_what_they_become_without(tmp_path, monkeypatch):
    calls, became = [], []
    for number, (dtype, hold) in enumerate((("bf16", cohort.held_in), ("bf16", lambda *_: None), ("fp32", None))):
        outputs = tmp_path / str(number)
        (wish,), data = wishes_of([["indexer=h1d8", f"dtype={dtype}"]], outputs)
        dashboard = Dashboard(wish[0], "base", "dense", "base", silent=True)
        make_base(Store(outputs), wish[0], wish[1].base, data, dashboard)
        monkeypatch.setattr(cohort, "held_in", lambda *given, hold=hold: calls.append(given[0]) or hold(*given))
        assert make([wish], data) == {}
        became.append(weights(wish))
    assert calls == [torch.bfloat16] * 2, "float32 is left alone"
    assert same(*became[:2]) and not same(*became[1:])


@pytest.mark.slow
def test_members_of_unequal_warm_ups_each_get_their_own(based, alone):
    members = [FEW[0], *([*FEW[0], setting] for setting in ("recipe.warmup.steps=4", "recipe.warmup.indexer_lr=0.01"))]
    members.append([*FEW[0], "recipe.warmup.steps=0", "recipe.sparse.steps=2"])
    wishes, data = wishes_of(members, based)
    assert make(wishes, data) == {}
    for member, wish in zip(members, wishes, strict=True):
        assert (same(weights(wish), alone(member)[0]), rows(wish)) == (True, alone(member)[1]), member


@pytest.mark.slow
def test_the_attention_to_learn_is_computed_once_a_layer_and_step_for_all_members(based, monkeypatch):
    wishes, data = wishes_of(FEW[:4], based)
    targets, losses = [], []
    target, divergences = cohort.attention_of, cohort.ops.indexer_losses
    monkeypatch.setattr(cohort, "attention_of", lambda *a: targets.append(a[0].site.index) or target(*a))
    monkeypatch.setattr(
        cohort.ops, "indexer_losses", lambda *a, **b: losses.append(len(a[0])) or divergences(*a, **b)
    )  # fmt: skip
    assert make(wishes, data) == {}
    steps = wishes[0][0].recipe.warmup_steps
    assert targets == [0, 1] * steps and losses == [4, 4] * steps


@pytest.mark.slow
def test_the_warm_up_leaves_the_base_as_it_is(based, monkeypatch):
    wishes, data = wishes_of(FEW[:2], based)
    place, fit, seen = Store(based).folder(wishes[0][1].base), cohort.fit, []
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
def test_the_twenty_shipped_indexers_become_in_one_cohort_what_each_becomes_alone(based, alone):
    members = [[*member, "recipe.warmup.steps=3"] for member in (*TWENTY, *AGAIN)]
    wishes, data = wishes_of(members, based)
    assert len({need.hash for _, need in wishes}) == 20 + 5
    assert make(wishes, data) == {}
    for member, wish in zip(members, wishes, strict=True):
        assert same(weights(wish), alone(member)[0]), member


DISTRIBUTED = """
import torch
from training.cohorts import FEW, RUN, make, wishes_of

RUN += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
for members, outputs in {cohorts!r}:
    assert make(*wishes_of(members, outputs)) == {{}}
assert torch.distributed.get_world_size() == 2
"""


@pytest.mark.slow
def test_two_processes_train_a_cohort_as_each_of_its_members_alone_and_as_one_process_does(based, alone, tmp_path):
    script = tmp_path / "cohort.py"
    apart = [([member], str(shutil.copytree(based, tmp_path / f"apart-{n}"))) for n, member in enumerate(FEW)]
    script.write_text(DISTRIBUTED.format(cohorts=[(FEW, str(based)), *apart]))
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = launch([sys.executable, str(script)], environment, tmp_path, children=True)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == 0, text
    wishes, _ = wishes_of(FEW, based)
    for (members, outputs), wish in zip(apart, wishes, strict=True):
        (own,), (member,) = wishes_of(members, outputs)[0], members
        for expected, far in ((weights(own), 1e-6), (alone(member)[0], 2e-5)):  # two processes sum in another order
            for name, weight in weights(wish).items():
                torch.testing.assert_close(weight, expected[name], atol=far, rtol=0, msg=f"{member}: {name}")


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
        for group in range(len(every)):
            first, *_, last = [float(row[f"train/pattern_{site:02d}_{group}_all"]) for row in rows]
            assert first == pytest.approx(1 / 3, abs=1e-6) and last > first
            names = [name for name in rows[-1] if name.startswith(f"train/pattern_{site:02d}_{group}_")]
            assert sum(float(rows[-1][name]) for name in names) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("member", [LEARNED, [*LEARNED, "index_every=2"]], ids=["each", "shared"])
def test_what_the_cohort_taught_a_pattern_is_judged_and_where_joint_training_begins(based, member):
    (wish,), data = wishes_of([[*member, "recipe.sparse.steps=2"]], based)
    assert make([wish], data) == {}
    spec, graph = wish[0], graph_of(wish[0], data.fingerprint)
    models = Models(Store(based), data.vocab_size)
    judged = (lambda: models.of(spec, graph.swap), lambda: models.of(spec, graph.window))
    for make_model in (*judged, lambda: start_of(Store(based), spec, graph.joint, data)):
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
def test_joint_training_begins_with_what_the_cohort_made(based):
    (wish,), data = wishes_of([["indexer=h2d8", "recipe.sparse.steps=2"]], based)
    make([wish], data)
    spec = wish[0]
    model = start_of(Store(based), spec, graph_of(spec, data.fingerprint).joint, data)
    trained = build_indexers(spec, model)
    for site, indexer in enumerate(trained):
        own = {n.split(".", 1)[1]: w for n, w in weights(wish).items() if n.startswith(f"{site}.")}
        fit_weights(indexer, own, based)
        assert same(model.routers[site].indexer.state_dict(), indexer.state_dict())
