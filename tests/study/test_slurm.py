"""Jobs of a scheduler, on a SLURM of one machine that really runs them (slurm.py)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dsa.study.workers.claim import ENDED
from dsa.study.workers.queue import QUEUED, Squeue
from study.studies import launched, start

SCRIPT = Path(__file__).with_name("slurm.py")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Its commands in front of all others; the folder in which it keeps its jobs."""
    commands, folder = tmp_path / "bin", tmp_path / "slurm"
    commands.mkdir()
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol"):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {SCRIPT} {name} "$@"\n')
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    yield folder
    for job in folder.glob("jobs/*"):
        subprocess.run([sys.executable, str(SCRIPT), "scancel", job.name], check=True)


def states(slurm):
    return {file.parent.name: file.read_text() for file in slurm.glob("jobs/*/state")}


def test_a_job_counts_as_waiting_where_nobody_can_be_asked(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert Squeue().has("1")


def test_squeue_is_asked_once_for_many_runs(slurm, monkeypatch):
    (slurm / "jobs" / "3_0").mkdir(parents=True)
    (slurm / "jobs" / "3_0" / "state").write_text("PENDING")
    one = Squeue()
    assert [one.has(job) for job in ("3_0", "3_1", "4")] == [True, False, False]
    assert (slurm / "asked").read_text() == "x"


@pytest.mark.slow
def test_submitted_without_waiting_runs_end_as_planned_and_the_last_job_analyses(slurm, outputs):
    """Never submitted twice, planned is planned, preempted goes on, the study is concluded."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    given = ["hydra/launcher=submitit_slurm", "wait=false", "judge=val", "steps=80", "callbacks.checkpoint_every=5"]
    (slurm / "hold").touch()
    text, _ = (first := start(outputs, *given)).communicate(timeout=250)
    assert first.returncode == 0, text
    notes = {file.parent.name: json.loads(file.read_text())["job_id"] for file in outputs.glob(f".jobs/*/{QUEUED}")}
    kinds = [(name.split("-")[0], job) for name, job in notes.items()]
    assert sorted(kinds) == [("base", "1"), ("cohort", "2"), ("control", "3"), ("joint", "4_0"), ("joint", "4_1")]
    assert json.loads((outputs / "tiny" / QUEUED).read_text())["job_id"] == "5", "the end of the study"
    assert set(states(slurm)) == {*notes.values(), "5"}
    text, _ = launched([sys.executable, "-m", "dsa.study", "status", str(outputs / "tiny")]).communicate(timeout=200)
    assert text.count("queued: ") == 5
    assert "slurm job 4_1" in text

    text, _ = (second := start(outputs, *given)).communicate(timeout=250)
    assert second.returncode == 0
    assert "0 jobs submitted" in text
    assert len(states(slurm)) == 6

    (outputs.parent / "conf" / "study" / "few.yaml").write_text("no yaml: [")
    planned = {file: file.read_bytes() for file in outputs.glob(".jobs/*/tiny.json")}
    assert len(planned) == 5
    (slurm / "hold").unlink()
    wait_for(lambda: list(outputs.glob("bases/*.partial/last.ckpt")))
    (base,) = outputs.glob("bases/*.partial")
    before = rows(base)
    subprocess.run([sys.executable, "-c", "import slurm; slurm.preempt('1')"], cwd=SCRIPT.parent, check=True)
    wait_for(lambda: set(states(slurm).values()) == {"COMPLETED"})
    (job,) = outputs.glob(f".jobs/base-*/{ENDED}")
    assert json.loads(job.read_text())["job_id"] == "1"
    saved = [row for row in before if int(row.split(",")[0]) <= 5]
    assert len(saved) == 5
    (base,) = outputs.glob("bases/*")
    for row, kept in zip(saved, rows(base), strict=False):
        assert kept.startswith(row), "with the time it took: it was not trained again"
    (log,) = outputs.glob(".sweeps/.submitit/1/1_0_log.out")
    assert log.read_text().count("Starting with") == 2

    assert {file: file.read_bytes() for file in planned} == planned
    results = [json.loads(file.read_text()) for file in outputs.glob("*/*/result.json")]
    assert [result["status"] for result in results] == ["finished"] * 3
    assert json.loads((outputs / "tiny" / "verdict.json").read_text())["finished"] == 3


def rows(folder):
    return (folder / "metrics.csv").read_text().splitlines()[1:]


def wait_for(there, seconds=400):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)
