"""Times that may be ranked: taken in turns, of a step and of a forward pass, dense attention among them."""

import json
import os
import re
import statistics
import weakref
from dataclasses import replace

import pytest
import torch

from dsa import compose
from dsa.artifacts.files import TIMING
from dsa.backbones import SparseTransformer
from dsa.precision import Exact, Integer
from dsa.study import timing
from dsa.study.__main__ import main
from dsa.study.timing import time_study
from study.rounds import which_process
from study.studies import drive

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    for name in ("VISITING", "STEPPING", "PASSING"):
        monkeypatch.setattr(timing, name, 0.0)


@pytest.fixture(params=["swap"])
def study(tiny, outputs, request):
    plans = tiny(judge=request.param)
    for plan in plans:
        plan.runs[:] = [run for run in plan.runs if run.label in ("dense", "h1d8")]
    assert drive(plans, outputs).status == 0
    return outputs / "tiny"


def test_conditions_are_timed_in_turns_without_training_and_again_only_if_asked(study, monkeypatch, capsys):
    turns, company = [], [0.0]
    step = timing.Timed.step
    monkeypatch.setattr(timing, "in_fresh_process", lambda call, *arguments: call(*arguments))
    monkeypatch.setattr(timing.Contention, "others", lambda self: company[0])
    monkeypatch.setattr(timing.Timed, "step", lambda self: turns.append(self.sparse) or step(self))
    before = {file: file.stat().st_mtime_ns for file in study.parent.glob("*/*/*") if file.is_file()}

    capsys.readouterr()
    time_study(study)
    assert turns == [True, False] * timing.ROUNDS, "h1d8 and dense alternate, dense really dense"
    told = capsys.readouterr().out
    assert f"timing 2 conditions at L 64, dense attention and controls among them, in {timing.ROUNDS} turns" in told
    assert f"python -m dsa.analysis {study}" in told and re.search(r"the first took .+: about .+ left", told)
    (length,) = (found := json.loads((study / TIMING).read_text()))
    assert length == "64"
    assert not found[length]["contended"]
    assert found[length]["processes"] == timing.ROUNDS == len(found[length]["turns"]["dense"])
    assert found[length]["times"].keys() == {"dense", "h1d8"}
    for times in found[length]["times"].values():
        assert times["step_ms"] > times["infer_ms"] > 0
    assert found[length]["times"]["dense"]["select_ms"] == 0 < found[length]["times"]["h1d8"]["select_ms"]
    time_study(study)
    assert len(turns) == 2 * timing.ROUNDS, "these very runs were timed alone"

    company[0] = 0.5
    assert main(["time", str(study)]) == 0
    assert len(turns) == 4 * timing.ROUNDS
    assert "contended" in capsys.readouterr().out
    assert json.loads((study / TIMING).read_text())[length]["contended"]
    time_study(study)
    assert len(turns) == 6 * timing.ROUNDS, "times taken in company are taken again"
    assert {file: file.stat().st_mtime_ns for file in before} == before, "nothing was trained"


def test_each_turn_is_a_process_of_its_own_with_as_many_threads_as_here(study, monkeypatch):
    """Both conditions of a turn share one, the next turn has another."""
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "one_round", which_process)
    ready = timing.finished_runs(study, json.loads((study / "study.json").read_text()), 64)
    found = timing.in_turns(ready, ())
    first, second = ([turn["pid"] for turn in found["turns"][label]] for label in ready)
    assert first == second and len({*first, os.getpid()}) == 3
    assert {turn["threads"] for turn in found["turns"]["dense"]} == {torch.get_num_threads()}
    assert found["others"] == 0.05 and not found["contended"]


def test_a_fresh_process_can_take_a_turn(study):
    ready = timing.finished_runs(study, json.loads((study / "study.json").read_text()), 64)
    taken, others = timing.in_fresh_process(timing.one_round, ready, (), 1)
    assert taken.keys() == {"dense", "h1d8"} and all(turn["step_ms"] > 0 for turn in taken.values())
    assert 0 <= others <= 1


def test_what_does_not_fit_into_memory_at_once_is_timed_one_after_the_other(study, monkeypatch):
    alive, most = weakref.WeakSet(), []

    class Counted(timing.Timed):
        def __init__(self, *given):
            super().__init__(*given)
            alive.add(self.model)

        def step(self):
            most.append(len(alive))
            return super().step()

    monkeypatch.setattr(timing, "Timed", Counted)
    ready = timing.finished_runs(study, json.loads((study / "study.json").read_text()), 64)
    first = timing.Timed(next(iter(ready.values())))
    needed = 2 * len(ready) * timing.HELD * sum(weight.numel() for weight in first.model.parameters())
    del first
    for free, together in ((needed, 2), (needed - 1, 1)):
        monkeypatch.setattr(timing, "memory_free", lambda spec, free=free: free)
        most.clear()
        taken, _ = timing.one_round(ready, (), 1)
        assert taken.keys() == {"dense", "h1d8"} and all(
            turn.keys() >= {"step_ms", "infer_ms"} for turn in taken.values()
        )
        assert max(most) == together


def test_a_step_leaves_the_weights_as_they_are_and_is_compiled_where_the_runs_are(study, monkeypatch):
    compiled = []
    monkeypatch.setattr(SparseTransformer, "compile_layers", lambda model: compiled.append(model))
    (folder,) = study.glob("h1d8*")
    one = timing.Timed(folder)
    weights = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.step()
    after = one.model.state_dict()
    assert all(after[name].equal(value) for name, value in weights.items() if "selector" not in name)
    assert not compiled
    one = timing.Timed(folder)
    one.spec = replace(one.spec, compile=True)
    for _ in range(2):
        one.step()
    assert compiled == [one.model]


@pytest.mark.parametrize("in_training", [False, True])
def test_a_step_is_timed_without_the_format_that_is_applied_after_training(study, in_training, monkeypatch):
    (folder,) = study.glob("h1d8*")
    one = timing.Timed(folder)
    one.spec = replace(one.spec, precision=compose(["precision=int4"]).precision, in_training=in_training)
    (router, *_) = timing.routers_of(one.model)
    router.precision, seen = one.spec.precision.make(), []
    monkeypatch.setattr(timing, "milliseconds", lambda *_: seen.append(router.precision) or 1.0)
    assert one.step() == {"step_ms": 1.0}
    assert isinstance(seen[0], Integer if in_training else Exact) and isinstance(router.precision, Integer)


@pytest.mark.parametrize("study", ["both"], indirect=True)
def test_after_joint_training_the_joint_model_is_timed(study):
    plan = json.loads((study / "study.json").read_text())
    ready = timing.finished_runs(study, plan, 64)
    assert list(ready) == ["h1d8", "dense"]
    for place in ready.values():
        assert json.loads((place / "result.json").read_text())["artifacts"]["joint"] is not None


def test_what_was_timed_is_kept_when_the_next_length_is_interrupted(tmp_path, monkeypatch):
    def timed(folders, admitted):
        if (tmp_path / TIMING).exists():
            raise KeyboardInterrupt
        return {"contended": False}

    monkeypatch.setattr(timing, "planned", lambda folder: {"seq_len": [64, 128], "runs": []})
    monkeypatch.setattr(timing, "in_turns", timed)
    with pytest.raises(KeyboardInterrupt):
        time_study(tmp_path)
    assert json.loads((tmp_path / TIMING).read_text()).keys() == {"64"}


@pytest.mark.parametrize(("most", "visiting", "visits"), [(4, 9.0, 4), (4, 0.0, 1), (9, 1.1, 3)])
def test_conditions_are_visited_in_rotation_and_their_medians_kept(monkeypatch, most, visiting, visits):
    clock, seen = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing, "VISITING", visiting)

    def visit(label):
        clock[0] += 0.5
        seen.append(label)
        return {"step_ms": float(len(seen) ** 2)}

    found = timing.in_rotation({label: lambda label=label: visit(label) for label in ("a", "b")}, most)
    assert seen == ["a", "b"] * visits
    assert found == {
        label: {"step_ms": statistics.median(number**2 for number in range(first, 2 * visits + 1, 2))}
        for label, first in (("a", 1), ("b", 2))
    }


def test_where_layers_are_compiled_each_condition_is_visited_once(study, monkeypatch):
    """torch forgets what it compiled of one model when it compiles another."""
    most = []
    monkeypatch.setattr(
        timing, "in_rotation", lambda visits, number: most.append(number) or {key: {} for key in visits}
    )
    ready = timing.finished_runs(study, json.loads((study / "study.json").read_text()), 64)
    timing.one_round(ready, (), torch.get_num_threads())
    init = timing.Timed.__init__

    def compiled(self, *given):
        init(self, *given)
        self.spec = replace(self.spec, compile=self.sparse)

    monkeypatch.setattr(timing.Timed, "__init__", compiled)
    timing.one_round(ready, (), torch.get_num_threads())
    assert most == [timing.VISITS] * 2 + [1] * 2
