"""The best of a selection, confirmed after joint training on seeds that took no part in it."""

import json

import pytest

from dsa.artifacts.results import RunResult
from dsa.study.drive import Drive
from dsa.study.finalists import choose
from dsa.study.options import Options
from dsa.study.states import Results
from study.studies import TINY, drive, planned, plans_of

YAML = {
    "judge": "both",
    "finalists": 1,
    "baseline": {"indexer": "h1d8"},
    "conditions": {"indexer": ["h1d8", "h2d8", "h1d16"]},
    "controls": ["dense", "window"],
    "seed": [0, 1],
}


def leave(run, loss, status="finished"):
    run.folder.mkdir(parents=True, exist_ok=True)
    RunResult(
        run.folder.name, status, run.study, {}, "tiny", "mqar", "continue", 64, run.seed, swap_val_loss=loss,
        provenance={"code": run.graph.code},
    ).write(run.folder)  # fmt: skip


def test_the_best_by_mean_swap_loss_go_on_with_baseline_and_controls_on_fresh_seeds(outputs):
    plan = planned(YAML, *TINY, f"output_dir={outputs}")
    assert plan.to_choose
    assert {(run.judge, run.phase, run.seed) for run in plan.runs} == {
        ("swap", "selection", 0),
        ("swap", "selection", 1),
    }
    losses = {"h1d8": (9.0, 9.0), "h2d8": (1.0, 5.0), "h1d16": (2.0, 2.5), "dense": (0.0, 0.0), "window": (0.0, 0.0)}
    for run in plan.runs[:-1]:
        leave(run, losses[run.label][run.seed])
    results = Results("rerun")
    assert choose(plan, results) == {(64, ""): ["h1d8", "h1d16"]}, "a control's missing run keeps nobody waiting"
    added = plan.confirm(choose(plan, results))
    assert {run.label for run in added} == {"h1d8", "h1d16", "dense", "window"}
    assert {(run.judge, run.phase, run.seed) for run in added} == {
        ("val", "confirmation", 2),
        ("val", "confirmation", 3),
    }
    assert not plan.to_choose


def test_nobody_is_chosen_before_the_selection_is_over_nor_by_half_of_its_seeds(outputs):
    plan = planned(YAML, *TINY, f"output_dir={outputs}")
    runs = [run for run in plan.runs if run.role == "condition"]
    for run in runs[:-1]:
        leave(run, 1.0)
    assert choose(plan, Results("rerun")) is None
    leave(runs[-1], None, "failed")
    assert choose(plan, Results("rerun")) == {(64, ""): ["h1d8", "h2d8"]}, "h1d16 failed at a seed"


@pytest.mark.slow
def test_a_study_with_finalists_runs_to_its_end_and_says_which_run_is_which(outputs):
    def plans():
        return [planned(YAML, *TINY, f"output_dir={outputs}")]

    outcome = drive(plans(), outputs)
    assert outcome.status == 0
    assert len(outcome.done) == 10 + 8
    plan = json.loads((outputs / "x" / "study.json").read_text())
    ((chosen,),) = [plan["chosen"]]
    assert (chosen["seq_len"], len(chosen["labels"]), chosen["labels"][0]) == (64, 2, "h1d8")
    phases = {(run["phase"], run["judge"], run["seed"]) for run in plan["runs"]}
    assert phases == {("selection", "swap", 0), ("selection", "swap", 1), ("confirmation", "val", 2),
                      ("confirmation", "val", 3)}  # fmt: skip
    assert len(list(outputs.glob("joint/*"))) == 2 * 4, "nothing was trained jointly on the selection's seeds"
    before = {file: file.stat().st_mtime_ns for file in outputs.glob("*/*/result.json")}
    again = plans()
    one = Drive(again, outputs, Options(), lambda jobs, files: pytest.fail("nothing is left"))
    assert one().status == 0
    assert again[0].chosen == {(64, ""): chosen["labels"]}
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
def test_judged_both_ways_a_condition_has_both_runs_on_each_seed(outputs):
    (plan,) = plans = plans_of("name=x", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}", judge="both")
    assert drive(plans, outputs).status == 0
    by_judge = {judge: {r.label: r for r in plan.runs if r.judge == judge} for judge in ("swap", "val")}
    results = Results("keep")
    for label, run in by_judge["val"].items():
        joint, swap = results.of(run.folder), results.of(by_judge["swap"][label].folder)
        assert joint.swap_val_loss == swap.swap_val_loss == swap.val_loss
        assert joint.artifacts["joint"] is not None and swap.artifacts["joint"] is None
