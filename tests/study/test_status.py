"""What `python -m dsa.study status` says of runs in every state."""

import json
import os

import pytest
from dsa.training.provenance import code_fingerprint
from dsa.training.result import RunResult

from dsa.study.__main__ import main
from dsa.study.claim import claimed, this_process
from dsa.study.drive import Drive
from dsa.study.options import Options
from dsa.study.queue import QUEUED


def leave(run, status, code):
    run.folder.mkdir(parents=True)
    RunResult(
        run.run_id, status, run.study, {}, "tiny", "mqar", "continue", 64, 0, provenance={"code": code}
    ).write(run.folder)  # fmt: skip


def test_status_tells_all_states_apart(tiny, outputs, capsys):
    (plan,) = plans = tiny()
    Drive(plans, outputs, Options(), lambda runs, files: []).write_plans()
    runs = {("base" if run.kind == "base" else run.label): run for run in plan.runs}
    leave(runs["base"], "finished", code_fingerprint(()))
    leave(runs["dense"], "finished", "of another day")
    leave(runs["h1d8"], "failed", code_fingerprint(()))
    runs["h2d8"].folder.mkdir(parents=True)
    (runs["h2d8"].folder / QUEUED).write_text(json.dumps({"cluster": "ray", "job_id": "77"} | this_process()))
    (runs["random"].folder / "checkpoints").mkdir(parents=True)
    with claimed(runs["oracle"].folder):
        assert main(["status", str(outputs / "tiny")]) == 0
    said = capsys.readouterr().out
    table = [[cell.strip() for cell in line.split(line[0])[1:-1]] for line in said.splitlines() if line[:1] in "┃│"]
    heads, rows = table[0], {row[0]: row for row in table[1:]}
    found = {label: heads[row.index("1")] for label, row in rows.items()}
    assert found == {
        "dense base": "done", "dense": "stale", "h1d8": "failed", "h2d8": "queued", "oracle": "running",
        "random": "interrupted", "window": "missing",
    }  # fmt: skip
    assert f"running: {runs['oracle'].run_id} ({os.uname().nodename} process {os.getpid()})" in said
    assert f"queued: {runs['h2d8'].run_id} (ray job 77)" in said


def test_a_job_whose_process_is_gone_waits_no_more(tiny, outputs, capsys):
    (plan,) = plans = tiny()
    Drive(plans, outputs, Options(), lambda runs, files: []).write_plans()
    folder = plan.runs[-1].folder
    folder.mkdir(parents=True)
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
    Drive(plans, outputs, Options(), lambda runs, files: []).write_plans()
    path = outputs / "tiny" / "study.json"
    plan = json.loads(path.read_text())
    for run in plan["runs"]:
        del run["context"]
    path.write_text(json.dumps(plan))
    assert main([command, str(outputs / "tiny")]) == 2
    said = capsys.readouterr().err
    assert "its runs lack context. Plan it again: python sweep.py name=tiny stale=keep" in said
    assert said.count("\n") == 1
    Drive(plans, outputs, Options(), lambda runs, files: []).write_plans()
    assert main(["status", str(outputs / "tiny")]) == 0
