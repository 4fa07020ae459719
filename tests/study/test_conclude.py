"""The end of a study: what it says, and what is said if it cannot be analysed."""

import json

import pytest

from dsa.study import conclude as end
from dsa.study.conclude import LOG, conclude
from dsa.study.drive import Drive
from dsa.study.options import Options
from study.studies import drive, plans_of


@pytest.mark.slow
def test_a_study_ends_with_its_verdict_and_an_error_there_hides_nothing(tiny, outputs, capsys, monkeypatch):
    (plan,) = plans = tiny()
    plan.runs[:] = [run for run in plan.runs if run.label in ("dense", "h1d8")]
    assert drive(plans, outputs).status == 0
    folder = outputs / "tiny"
    capsys.readouterr()
    assert conclude(folder, timing=False, stale="keep")
    said = capsys.readouterr().out
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["sentence"] in said
    assert verdict["best"][0]["sentence"] in said
    assert str(folder) in said.splitlines()[-1]

    def broken(folder):
        raise KeyError("val_loss")

    monkeypatch.setattr(end, "analyse_folder", broken)
    assert not conclude(folder, timing=False, stale="keep")
    assert "its runs are not touched (KeyError: 'val_loss')" in capsys.readouterr().err
    assert "Traceback" in (folder / LOG).read_text()


def test_the_plan_on_disk_says_of_each_run_what_it_is_compared_as(outputs):
    plans = plans_of("study=model_scaling", "seed=0", f"output_dir={outputs}", exploratory=True)
    Drive(plans, outputs, Options(), lambda runs, files: []).write_plans()
    runs = json.loads((outputs / "model_scaling" / "study.json").read_text())["runs"]
    kinds = {run["kind"] for run in runs}
    assert kinds == {"base", "condition", "dense", "oracle", "random", "window"}
    contexts = {run["context"] for run in runs}
    assert len(contexts) == 5, "a context is a size of the model"
    for run in runs:
        if run["kind"] not in ("base", "condition"):
            assert run["label"] == f"{run['kind']}-{run['context']}"
