"""Whatever becomes the name of a folder stays inside output_dir."""

import json
import re

import pytest
from conftest import QUIET, SMALL
from study.studies import TINY, plans_of

from dsa import compose, load_run, train
from dsa.analysis.__main__ import main as analysis
from dsa.artifacts.store import RECORD, Store
from dsa.checks import folder_name
from dsa.config import compose as composed
from dsa.graph import graph_of, run_id
from dsa.spec import spec_from, spec_of
from dsa.study.__main__ import main as study
from dsa.study.drive import Drive
from dsa.study.jobs import Job
from dsa.study.options import Options
from dsa.study.workers.job import Work, work
from dsa.training import RunFailed
from dsa.training.cohort import DONE, publish_trained
from write import main as findings

OUTSIDE = ["../../x", "/tmp/x", "a/b", "..", ".", "a\\b", "a\0b", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_is_that_of_one_folder(name):
    with pytest.raises(ValueError, match="it names one folder"):
        folder_name(name, "name")


@pytest.mark.parametrize("key", ["name", "study"])
def test_a_run_is_not_written_outside_the_output_folder(key, outputs):
    before = set(outputs.parent.rglob("*"))
    cfg = composed([*SMALL, *QUIET, f"output_dir={outputs / 'inner'}"])
    cfg[key] = "../../elsewhere"
    with pytest.raises(ValueError, match=r"name = \.\./\.\./elsewhere: it names one folder"):
        spec_of(cfg)
    assert set(outputs.parent.rglob("*")) == before


def test_a_study_is_not_planned_outside_the_output_folder(outputs):
    with pytest.raises(ValueError, match=r"name = \.\./x: it names one folder"):
        plans_of("name=../x", "indexer=h1d8,h2d8", *TINY, f"output_dir={outputs}")


LED_AWAY = {
    "run_id": {"run_id": "../../victim"},
    "study": {"study": "../.."},
    "an absolute path": {"run_id": "/tmp/victim"},
    "artifacts.base": {"artifacts": {"base": "../../../victim", "indexers": "x", "joint": None, "control": None}},
    "artifacts.joint": {"artifacts": {"base": None, "indexers": None, "joint": "..", "control": None}},
}


@pytest.mark.parametrize("command", ["status", "conclude", "time", "sync"])
@pytest.mark.parametrize("of_plan", LED_AWAY.values(), ids=LED_AWAY.keys())
def test_a_plan_that_names_folders_elsewhere_is_refused(command, of_plan, run_folder, outputs, capsys):
    folder = run_folder({}, **of_plan).parent
    victim = outputs.parent / "victim"
    victim.mkdir()
    (victim / "queued.json").write_text(json.dumps({"cluster": "local", "job_id": "1", "host": "here", "pid": 1}))
    before = set(outputs.parent.rglob("*"))
    assert study([command, str(folder)]) == 2
    ((key, value),) = of_plan.items()
    if key == "artifacts":
        key, value = next((f"artifacts.{kind}", name) for kind, name in value.items() if name and ".." in name)
    assert f"{key} = {value}: it names one folder" in capsys.readouterr().err
    assert set(outputs.parent.rglob("*")) == before


def test_a_plan_whose_own_name_is_a_path_is_refused(run_folder, capsys):
    folder = run_folder({}).parent
    plan = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(plan | {"name": "../../victim"}))
    assert study(["status", str(folder)]) == 2
    assert "name = ../../victim: it names one folder" in capsys.readouterr().err


def test_a_result_that_names_artifacts_elsewhere_is_refused(run_folder):
    folder = run_folder({})
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"artifacts": {"base": "../../victim"}}))
    with pytest.raises(ValueError, match=r"result\.json: artifacts\.base = \.\./\.\./victim: it names one folder"):
        load_run(folder)


NAMED_ELSEWHERE = r"result\.json: artifacts\.base = \.\./\.\./victim: it names one folder"


@pytest.fixture
def led_away(outputs):
    """The plan of one run, in whose folder lies a result that names artifacts elsewhere."""
    (plan,) = plans_of("name=x", "judge=swap", "indexer=h1d8", *TINY, f"output_dir={outputs}", exploratory=True)
    run = plan.applicable[0]
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text(json.dumps({"schema": 2, "artifacts": {"base": "../../victim"}}))
    return plan, run


def test_a_run_whose_result_names_artifacts_elsewhere_fails_with_that_sentence(led_away):
    _, run = led_away
    with pytest.raises(RunFailed, match=NAMED_ELSEWHERE):
        train(run.spec)
    assert "it names one folder" in json.loads((run.folder / "result.json").read_text())["error"]["reason"]


def test_a_worker_tells_of_such_a_result_in_that_sentence(led_away, outputs):
    plan, run = led_away
    drive = Drive([plan], outputs, Options(), lambda jobs, files: [])
    drive.begin()
    failure = work(drive.file(Job("judge", "x", runs=(run,))))
    assert (failure.category, bool(re.search(NAMED_ELSEWHERE, failure.reason))) == ("config", True)


@pytest.mark.parametrize("key", ["name", "hash"])
def test_a_member_of_a_cohort_takes_no_place_elsewhere(key, outputs):
    victim = outputs.parent / "victim"
    member = outputs / "indexers" / ".cohorts" / "x-y" / "z"
    for folder in (victim, victim.with_name("victim.old"), outputs / "indexers" / "a-b", member):
        folder.mkdir(parents=True)
    record = {"name": "h1d8-x", "hash": "x", "code": "x"} | {key: "../../victim"}
    (member / RECORD).write_text(json.dumps(record))
    (member.parent / DONE).touch()
    with pytest.raises(ValueError, match=rf"{key} of indexers = \.\./\.\./victim: it names one folder"):
        publish_trained(Store(outputs), "x")
    assert victim.exists() and victim.with_name("victim.old").exists()


def test_the_names_of_runs_and_artifacts_are_single_folders_whatever_the_options_are_called(outputs):
    spec = compose([*SMALL, *QUIET, "indexer=h1d8", "recipe=judge", f"output_dir={outputs}"])
    content = spec.content | {"choices": spec.content["choices"] | {"indexer": "mine/../../x", "model": "a\\b"}}
    graph = graph_of(spec_from(content), "corpus")
    names = [need.name for need in graph.parts if need.kind != "judgement"] + [run_id(spec_from(content), graph)]
    assert len(names) == 3
    for name in names:
        assert folder_name(name, "name") == name


@pytest.fixture
def job(outputs):
    """A job's file as a sweep writes it, and its content."""
    (plan,) = plans_of("name=x", "judge=swap", "indexer=h1d8", *TINY, f"output_dir={outputs}", exploratory=True)
    drive = Drive([plan], outputs, Options(on_error="stop"), lambda jobs, files: [])
    drive.begin()
    path = drive.file(drive.jobs("base", drive.runs)[0])
    return path, json.loads(path.read_text())


def led_to(content, place):
    (make,) = content["makes"]
    return content | {"makes": [make | {"config": make["config"] | {"output_dir": str(place)}}]}


def test_a_job_writes_nowhere_but_beside_its_own_folder(job, outputs):
    path, content = job
    assert Work(path).kind == "base"
    elsewhere = outputs.parent / "elsewhere"
    for evil in (led_to(content, elsewhere), content | {"stop": str(elsewhere / "x" / ".stopped")}):
        path.write_text(json.dumps(evil))
        with pytest.raises(ValueError, match=r"this job would write to .*elsewhere"):
            work(path)
    assert not elsewhere.exists()


def test_a_file_that_is_no_job_of_a_sweep_is_not_done(job, outputs):
    path, content = job
    copy = outputs / "theirs" / "base-0123" / "x.json"
    copy.parent.mkdir(parents=True)
    copy.write_text(json.dumps(content))
    for wrong in (copy, path.with_name("not there.json")):
        with pytest.raises(ValueError, match="no job of a sweep"):
            work(wrong)
    assert sorted(copy.parent.iterdir()) == [copy]


def test_the_analysis_reads_and_writes_no_folder_elsewhere(run_folder, outputs, capsys):
    folder = run_folder({}).parent
    plan = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(plan | {"name": "../../victim"}))
    for command, arguments in ((analysis, []), (findings, ["--to", str(outputs / "docs" / "findings")])):
        assert command([str(folder), *arguments]) in (1, 2)
        assert "../../victim: it names one folder" in capsys.readouterr().err
    assert not (outputs / "victim").exists()
