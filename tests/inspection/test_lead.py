"""Which layers keep an indexer when some lead the others: found where the truth is known, and the command on a run."""

import json

import pytest
import torch
from conftest import QUIET, SMALL

from dsa import build_model, compose, load_run, train
from dsa.analysis.__main__ import main
from dsa.backbones import Pass, Router
from dsa.build import build_data, numbers_of_indexers
from dsa.data import MQAR, DataModule
from dsa.inspection.held import Held
from dsa.inspection.lead import measure_lead, search
from dsa.inspection.query_blocks import query_blocks
from dsa.judging.evaluation import evaluate
from dsa.judging.probe import observed

FOUR = [
    *SMALL,
    "model.layers=4",
    "data.batch_size=64",
    "seq_len=32",
    "pattern=causal",
    "selector.k=4",
    "indexer=h2d8",
    "dtype=fp32",
]


def test_each_time_the_layer_goes_whose_absence_costs_least():
    cost, asked = {0: 0.0, 1: 4.0, 2: 1.0, 3: 3.0, 4: 1.0}, []

    def loss(leaders):
        asked.append(leaders)
        gone = cost.keys() - set(leaders)
        return sum(cost[layer] for layer in gone) + (9.0 if {3, 4} <= gone else 0.0)  # together 3 and 4 are missed most

    steps = list(search(loss, 5, 2))
    assert [step.layer for step in steps] == [None, 2, 4, 1]  # of 2 and 4, equally cheap, the earlier first
    assert [step.loss for step in steps] == [0.0, 1.0, 2.0, 6.0]
    assert steps[-1].leaders == (0, 3)
    assert all(0 in leaders for leaders in asked) and len(asked) == 1 + 4 + 3 + 2


class Echo(Router):
    """Chooses what the router before it chose."""

    def route(self, site, x, attention, rotary, how, *given):
        before = max((number for number in how.routes if number < self.site), default=None)
        routed = super().route(site, x, attention, rotary, how, *given)
        if site.index == self.site:
            routed = how.routes[self.site] = routed._replace(selection=how.routes[before].selection)
        return routed


class Told(MQAR):
    """Rows whose targets are what a model says: whatever changes it costs."""

    model = None

    def answered(self, batch):
        return batch._replace(targets=self.model(batch.tokens).argmax(-1), slice=None, depth=None)

    def sample(self, rows, seq_len, rng):
        return self.answered(super().sample(rows, seq_len, rng))

    def evaluation(self, rows, seq_len):
        return self.answered(super().evaluation(rows, seq_len))


def with_echo(at):
    """A model of four layers that is sure of what it says, of which one repeats the choice before it, and its rows."""
    source = Told()
    source.model = model = build_model(compose(FOUR), source.vocab_size).eval()
    with torch.no_grad():
        model.to_logits.weight.mul_(30)
    routers = list(model.routers)
    old = routers[at]
    routers[at] = Echo(old.indexer, old.pattern, old.selector, old.precision, old.site, old.backend)
    model.attach(routers)
    return model, DataModule(source, seq_len=32, batch_size=16, eval_batches=1, seed=0, eval_batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 3])
def test_a_layer_that_chooses_what_the_one_before_it_chose_stops_leading_first(at):
    model, data = with_echo(at)
    tried = []
    found = measure_lead(model, data, 2, "made up", rows=33, tried=lambda *told: tried.append(told))
    assert tried == [(done, 6) for done in range(1, 7)], "none, three layers, two of those that are left"
    first, second, third = found["steps"]
    assert found["calibration_rows"] == 48 and found["rows"] == 8, "whole batches"
    assert second["layer"] == at
    assert second["calibration_loss"] == first["calibration_loss"] and second["loss"] == first["loss"]
    assert third["loss"] > first["loss"] + 0.01, "others are missed"
    assert second["overlap"] == 1.0 and second["mass"] == first["mass"] != third["mass"]
    assert third["leaders"] == found["leaders"] == sorted({0, 1, 2, 3} - {at, third["layer"]})
    assert model.router_of == (0, 1, 2, 3)
    again = measure_lead(model, data, 3, "made up", rows=33)
    assert again["steps"] == found["steps"][:2] and again["mass"] == found["mass"], "the same on every call"


def test_what_a_layer_holds_of_a_later_one_is_by_keys_and_by_attention():
    model, data = with_echo(2)
    seen = observed(model, next(iter(data.eval_loader())).tokens[:1])
    held, parts = Held(4), [next(iter(query_blocks(layer))) for layer in seen]
    held.add(parts)
    overlap, mass = held.means()
    assert torch.equal(overlap.diagonal(), torch.ones(4, dtype=torch.float64)) and overlap[1, 2] == 1
    kept = [set(seen[layer].selection.positions[0, 0, 8].tolist()) for layer in (0, 3)]
    (one,) = [part._replace(contested=torch.arange(32)[None] == 8) for part in parts[3:]]
    single = Held(4)
    single.add([*parts[:3], one])
    shared = sorted(kept[0])
    assert 0 < len(kept[0] & kept[1]) < 4
    assert single.means()[0, 0, 3] == pytest.approx(len(kept[0] & kept[1]) / 4)
    assert single.means()[1, 0, 3] == pytest.approx(float(one.attention[0, 8, shared].sum()), rel=1e-6)
    leader_of = [0, 0, 2, 2]
    expected = (mass[0, 0] + mass[0, 1] + mass[2, 2] + mass[2, 3]) / 4, (overlap[0, 1] + overlap[2, 3]) / 2
    assert held.over(leader_of) == pytest.approx([float(x) for x in expected])
    assert held.over([0, 1, 2, 3])[1] is None


@pytest.fixture
def run(outputs):
    """A finished run of four layers, each with an indexer of its own, and what it was composed of."""
    given = [*FOUR, *QUIET, "recipe.dense.steps=2", "recipe.warmup.steps=2", "judge=swap", f"output_dir={outputs}"]
    return train(compose(given)), given


@pytest.mark.slow
def test_the_command_gives_a_setting_and_its_loss_is_that_of_the_model_with_it(run, tmp_path, capsys):
    result, given = run
    file = tmp_path / "lead.json"
    assert main(["lead", result.folder, "--layers", "2", "--rows", "64", "--json", str(file)]) == 0
    told, found = capsys.readouterr().out, json.loads(file.read_text())
    setting = f"index_every=[{','.join(map(str, found['leaders']))}]"
    assert setting in told and found["leaders"][0] == 0 and len(found["leaders"]) == 2
    assert [len(step["leaders"]) for step in found["steps"]] == [4, 3, 2]
    assert found["steps"][0]["loss"] == pytest.approx(result.swap_val_loss, rel=1e-5)
    spec = compose([*given, setting])
    model, data = load_run(result.folder), build_data(spec)
    model.attach([model.routers[n] for n in spec.index_every], numbers_of_indexers(model.sites, spec.index_every))
    measured = evaluate(spec.trainer, "fp32", data, model, sparse=True)["loss"]
    assert found["steps"][-1]["loss"] == pytest.approx(measured, rel=1e-6)
    assert measured != pytest.approx(result.swap_val_loss, rel=1e-5)
    seen = []
    model.run(data.batch("lead", 0).tokens, Pass(observe=seen.append))
    led = [found["leaders"][n] for n in numbers_of_indexers(model.sites, found["leaders"])]
    assert all(seen[layer].selection is seen[leader].selection for layer, leader in enumerate(led))


@pytest.mark.slow
def test_runs_that_have_nothing_to_choose_are_refused_in_a_sentence(run, tmp_path, capsys):
    result, given = run

    def refused(folder, layers="2", *more):
        assert main(["lead", str(folder), "--layers", layers, *more]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    assert "has 4 layers with an indexer; give how many keep one, at least 1 and fewer than 4" in refused(
        result.folder, "4"
    )
    assert "--layers = 0" in refused(result.folder, "0")
    assert "--rows = 0: give a whole number from 1" in refused(result.folder, "2", "--rows", "0")
    assert "no indexer chooses its keys" in refused(train(compose([*given, "selector=window"])).folder)
    for setting in ("index_every=2", "index_every=[0,3]"):
        assert "its 4 layers share 2 indexers" in refused(train(compose([*given, setting])).folder)
    assert "keeps every earlier key" in refused(train(compose([*given, "selector.k=32"])).folder)
    assert "no such folder" in refused(tmp_path / "none")
