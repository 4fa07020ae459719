"""What `python -m dsa.study status` says of runs in every state."""

import dataclasses
import json
import os

import pytest

from dsa.artifacts.results import RunResult
from dsa.study.__main__ import main
from dsa.study.drive import Drive
from dsa.study.jobs import Job
from dsa.study.messages import show_outcome
from dsa.study.options import Options
from dsa.study.outcome import Outcome
from dsa.study.workers.claim import CLAIM, claimed, this_process
from dsa.study.workers.queue import QUEUED
from study.studies import GONE


def leave(run, status, code):
    run.folder.mkdir(parents=True)
    RunResult(
        run.run_id, status, run.study, {}, "tiny", "mqar", "continue", 64, 0, provenance={"code": code}
    ).write(run.folder)  # fmt: skip


def planned(plans, outputs):
    """A drive whose plan is written, and the runs by label."""
    one = Drive(plans, outputs, Options(), lambda jobs, files: [])
    one.begin()
    return one, {run.label: run for run in plans[0].runs}


def alone(drive, run):
    """A job of one run, in its folder."""
    job = Job("judge", f"{run.label}", runs=(run,))
    drive.file(job)
    return job


def test_status_tells_all_states_apart(tiny, outputs, capsys):
    drive, runs = planned(tiny(), outputs)
    leave(runs["h1d8"], "failed", runs["h1d8"].graph.code)
    leave(runs["dense"], "finished", "of another day")
    queue, running, died = (alone(drive, runs[label]).folder for label in ("h2d8", "oracle", "random"))
    (queue / QUEUED).write_text(json.dumps({"cluster": "ray", "job_id": "77"} | this_process()))
    (died / CLAIM).write_text(json.dumps(GONE))
    with claimed(running):
        assert main(["status", str(outputs / "tiny")]) == 0
    said = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split(line[0])[1:-1]] for line in said.splitlines() if line[:1] in "┃│"]
    heads, rows = table[0], {row[0]: row for row in table[1:]}
    found = {label: heads[row.index("1")] for label, row in rows.items()}
    assert found == {
        "dense": "stale", "h1d8": "failed", "h2d8": "queued", "oracle": "running", "random": "interrupted",
        "window": "missing", "sink_window": "missing",
    }  # fmt: skip
    assert "bases 0 of 1; indexers 0 of 2" in said
    assert f"running: {running.name} ({os.uname().nodename} process {os.getpid()})" in said
    assert f"queued: {queue.name} (ray job 77)" in said


def test_a_result_of_this_very_code_is_done(tiny, outputs, capsys):
    _, runs = planned(tiny(), outputs)
    for run in runs.values():
        leave(run, "finished", run.graph.code)
    assert main(["status", str(outputs / "tiny")]) == 0
    said = capsys.readouterr().out
    assert "done" in said and not any(word in said for word in ("stale", "missing", "running"))


def test_a_job_whose_process_is_gone_waits_no_more(tiny, outputs, capsys):
    drive, runs = planned(tiny(), outputs)
    folder = alone(drive, runs["window"]).folder
    gone = this_process() | {"cluster": "local", "job_id": "1", "pid": 2**22 + 1}
    (folder / QUEUED).write_text(json.dumps(gone))
    assert main(["status", str(outputs / "tiny")]) == 0
    assert "queued" not in capsys.readouterr().out
    assert not (folder / QUEUED).exists()


def test_a_folder_that_is_no_study_is_said(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "no study.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "time", "conclude", "sync"])
def test_a_plan_of_older_code_is_planned_again(command, tiny, outputs, capsys):
    plans = tiny()
    Drive(plans, outputs, Options(), lambda jobs, files: []).write_plans()
    path = outputs / "tiny" / "study.json"
    plan = json.loads(path.read_text())
    for run in plan["runs"]:
        del run["context"]
    path.write_text(json.dumps(plan))
    assert main([command, str(outputs / "tiny")]) == 2
    said = capsys.readouterr().err
    assert "its runs lack context. Plan it again: python sweep.py name=tiny stale=keep" in said
    assert said.count("\n") == 1
    Drive(plans, outputs, Options(), lambda jobs, files: []).write_plans()
    assert main(["status", str(outputs / "tiny")]) == 0


@pytest.mark.parametrize("label", ["[/]", "[/red]", "a[b]"])
def test_a_label_that_looks_like_markup_is_shown_as_it_is(label, tiny, outputs, capsys):
    planned(tiny(), outputs)
    path = outputs / "tiny" / "study.json"
    plan = json.loads(path.read_text())
    plan["runs"][0]["label"] = label
    path.write_text(json.dumps(plan))
    assert main(["status", str(outputs / "tiny")]) == 0
    assert f"│ {label} " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("label", ["[/]", "[/red]", "a[b]"])
def test_a_plan_and_an_outcome_show_such_a_label_too(label, tiny, outputs, capsys, monkeypatch):
    (plan,) = tiny()
    failed = dataclasses.replace(plan.runs[0], point=dataclasses.replace(plan.runs[0].point, label=label))
    monkeypatch.setattr("sys.argv", ["sweep.py", f"indexer={label}"])
    show_outcome(Outcome(done=[], failed=[(failed, "nan", label)], missing=[]))
    said = capsys.readouterr().out
    assert said.count(label) == 3, "in the condition, the reason and the command that repeats it"
