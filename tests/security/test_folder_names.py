"""Whatever becomes the name of a folder stays inside output_dir."""

import json

import pytest
from conftest import QUIET, SMALL
from study.studies import TINY, plans_of

from dsa import compose, train
from dsa.analysis.__main__ import main as analysis
from dsa.checks import folder_name
from dsa.study.__main__ import main as study
from dsa.training import RunFailed

OUTSIDE = ["../../x", "/tmp/x", "a/b", "..", ".", "a\\b", "a\0b", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_is_that_of_one_folder(name):
    with pytest.raises(ValueError, match="it names one folder"):
        folder_name(name, "name")


@pytest.mark.parametrize("key", ["name", "study"])
def test_a_run_is_not_written_outside_the_output_folder(key, outputs):
    before = set(outputs.parent.rglob("*"))
    cfg = compose([*SMALL, *QUIET, f"output_dir={outputs / 'inner'}"])
    cfg[key] = "../../elsewhere"
    with pytest.raises(RunFailed, match=rf"{key} = \.\./\.\./elsewhere: it names one folder"):
        train(cfg)
    assert set(outputs.parent.rglob("*")) == before


def test_a_study_is_not_planned_outside_the_output_folder(outputs):
    with pytest.raises(ValueError, match=r"name = \.\./x: it names one folder"):
        plans_of("name=../x", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}")


@pytest.mark.parametrize("command", ["status", "conclude", "time", "sync"])
@pytest.mark.parametrize("of_plan", [{"run_id": "../../victim"}, {"study": "../.."}, {"run_id": "/tmp/victim"}])
def test_a_plan_that_names_folders_elsewhere_is_refused(command, of_plan, run_folder, outputs, capsys):
    folder = run_folder({}, **of_plan).parent
    victim = outputs.parent / "victim"
    victim.mkdir()
    (victim / "queued.json").write_text(json.dumps({"cluster": "local", "job_id": "1", "host": "here", "pid": 1}))
    before = set(outputs.parent.rglob("*"))
    assert study([command, str(folder)]) == 2
    (key,) = of_plan
    assert f"{key} = {of_plan[key]}: it names one folder" in capsys.readouterr().err
    assert set(outputs.parent.rglob("*")) == before


def test_the_analysis_reads_and_writes_no_folder_elsewhere(run_folder, outputs, capsys):
    folder = run_folder({}).parent
    plan = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(plan | {"name": "../../victim"}))
    for arguments in ([str(folder)], ["findings", str(folder), "--to", str(outputs / "docs" / "findings")]):
        assert analysis(arguments) == 1
        assert "../../victim: it names one folder" in capsys.readouterr().err
    assert not (outputs / "victim").exists()
