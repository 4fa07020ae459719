"""The end of a study: what it says, and what is said if it cannot be analysed."""

import json

import pytest

from dsa.artifacts.closure import fingerprint
from dsa.artifacts.names import CONTROLS
from dsa.study import conclude as end
from dsa.study.conclude import LOG, conclude
from dsa.study.drive import Drive
from dsa.study.options import Options
from dsa.study.states import code_now
from study.studies import drive, plans_of


@pytest.mark.slow
def test_a_study_ends_with_its_verdict_and_an_error_there_hides_nothing(tiny, outputs, capsys, monkeypatch):
    assert drive(tiny(), outputs).status == 0
    folder = outputs / "tiny"
    capsys.readouterr()
    assert conclude(folder, timing=False)
    said = capsys.readouterr().out
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["sentence"] in said
    assert verdict["best"][0]["sentence"] in said
    assert str(folder) in said.splitlines()[-1]

    def broken(folder):
        raise KeyError("val_loss")

    monkeypatch.setattr(end, "analyse_folder", broken)
    assert not conclude(folder, timing=False)
    assert "its runs are not touched (KeyError: 'val_loss')" in capsys.readouterr().err
    assert "Traceback" in (folder / LOG).read_text()


@pytest.mark.slow
def test_the_plan_on_disk_says_of_each_run_what_it_is_compared_as_and_made_of(outputs):
    plans = plans_of("study=model_scaling", "seed=0", f"output_dir={outputs}", exploratory=True)
    Drive(plans, outputs, Options(), lambda jobs, files: []).write_plans()
    plan = json.loads((outputs / "model_scaling" / "study.json").read_text())
    runs = plan["runs"]
    assert {run["kind"] for run in runs} == {"condition", *CONTROLS}
    contexts = {run["context"] for run in runs}
    assert len(contexts) == 5, "a context is a size of the model"
    for run in runs:
        if run["kind"] != "condition":
            assert run["label"] == f"{run['kind']}-{run['context']}"
        if run["run_id"] is not None:
            assert run["judge"] == "val" and run["phase"] is None
            assert (run["artifacts"]["indexers"] is not None) == (run["kind"] in ("condition", "static", "replicate"))
            assert (run["artifacts"]["joint"] == run["artifacts"]["control"]) == (run["kind"] == "dense")
            assert code_now(plan["codes"][run["code"]]) == run["code"]
    other = [[*parts, "dsa.indexers.UltraLight"] for parts in plan["codes"][runs[0]["code"]]]
    assert code_now(other) != runs[0]["code"] and fingerprint(("dsa.training.base",))
