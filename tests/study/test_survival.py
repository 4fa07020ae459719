"""Studies that lose a run, a worker, the process or the disk."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from dsa.training.result import RunResult

from dsa import load_study
from dsa.study import job
from dsa.study.claim import CLAIM, claimed, given_up, working
from dsa.study.drive import Drive
from dsa.study.job import work
from dsa.study.options import Options
from dsa.study.store import Finished, state
from dsa.study.sweep import check_devices
from dsa.training.run import failures_kept
from study.studies import CRASH, drive, start

# The process writes half of a result and is killed.
KILLED_IN_MID_WRITE = """
import os, signal

whole = os.replace

def replace(source, target, **more):
    if str(target).endswith("result.json") and "h2d8" in str(target):
        os.truncate(source, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(source, target, **more)

os.replace = replace
"""


def results(outputs: Path) -> dict[str, str]:
    return {file.parent.name: json.loads(file.read_text())["status"] for file in outputs.glob("*/*/result.json")}


def test_a_run_that_another_study_trains_is_left_to_it(tiny, outputs, monkeypatch):
    (one,), (other,) = tiny(), tiny("name=other")
    mine, theirs = (next(run for run in plan.runs if run.label == "h1d8") for plan in (one, other))
    assert mine.config_hash == theirs.config_hash and mine.folder != theirs.folder
    drives = [Drive([one], outputs, Options(wait=wait), lambda runs, files: []) for wait in (True, False)]
    with claimed(theirs.folder):
        assert [one.open([mine]) for one in drives] == [[], [mine]], "who does not wait may not count on it"
        assert drives[0].under_way(mine)
        assert work(drives[0].file(mine)) is None
        assert results(outputs) == {}, "its turn came while the other trained it"
        drives[0].options = Options(on_error="stop")
        assert drives[0].under_way(mine)
        drives[0].marker(mine).touch()
        assert not drives[0].under_way(mine), "a stopped sweep waits for nobody"
        drives[0].marker(mine).unlink()
    assert drives[0].open([mine]) == [mine], "given up without a result: trained here after all"
    assert not drives[0].under_way(mine)
    monkeypatch.setattr(Finished, "elsewhere", lambda *args: theirs.folder)
    assert work(drives[0].file(mine)) is None
    assert results(outputs) == {}, "the other has finished it meanwhile"


@pytest.mark.slow
def test_two_studies_started_together_train_what_they_share_once(outputs):
    sweeps = [start(outputs, f"name={name}") for name in ("one", "two")]
    for sweep in sweeps:
        text, _ = sweep.communicate(timeout=300)
        assert sweep.returncode == 0, text
    found = [json.loads(file.read_text()) for file in outputs.glob("*/h?d8*/result.json")]
    assert len(found) == 4
    trained = [result["config_hash"] for result in found if not result["reused_from"]]
    assert len(trained) == len(set(trained)) == 2


def test_a_claim_keeps_others_away_until_it_ends(tmp_path):
    with claimed(tmp_path) as mine, claimed(tmp_path) as other:
        assert (mine, other) == (True, False)
        assert working(tmp_path)
    assert not working(tmp_path)
    assert not given_up(tmp_path)


@pytest.mark.parametrize(
    "claim",
    [{"host": "elsewhere", "pid": 1}, {"host": os.uname().nodename, "pid": 2**22 + 1, "process_started": 0.0}],
)
def test_a_claim_is_stale_without_a_heartbeat_or_without_its_process(tmp_path, claim):
    (tmp_path / CLAIM).write_text(json.dumps(claim | {"token": "x"}))
    if claim["host"] == "elsewhere":
        assert working(tmp_path), "a fresh heartbeat of another host counts"
        os.utime(tmp_path / CLAIM, (time.time() - 120,) * 2)
    assert given_up(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine


def test_runs_on_several_devices_are_refused_where_a_run_has_one_process(tiny):
    with pytest.raises(ValueError, match="submitit_slurm"):
        check_devices(tiny("trainer.devices=2"), 1)
    with pytest.raises(ValueError, match="4 processes a node"):
        check_devices(tiny(), 4)
    check_devices(tiny("trainer.devices=2"), 2)


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_other_studies_take_them_over(tiny, outputs):
    assert drive(tiny(), outputs).status == 0
    before = {file: file.stat().st_mtime_ns for file in outputs.glob("*/*/result.json")}
    assert drive(tiny(), outputs).status == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    outcome = drive(tiny("name=other"), outputs, dispatch=lambda runs, files: pytest.fail("nothing is left to train"))
    assert (outcome.status, outcome.linked) == (0, 5)
    frame = load_study(outputs / "other")
    assert frame["reused_from"].notna().all()
    assert set(frame["study"]) == {"other"}


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_and_the_rest_goes_on(tiny, outputs, monkeypatch):
    whole = job.run

    def fragile(plan, kind):
        if plan.cfg.get("label") == "h1d8":
            with failures_kept(plan.cfg, plan):
                raise FloatingPointError("loss is nan")
        return whole(plan, kind)

    monkeypatch.setattr(job, "run", fragile)
    outcome = drive(tiny(), outputs)
    assert [(run.label, category) for run, category, _ in outcome.failed] == [("h1d8", "nan")]
    assert len(outcome.done) == 6
    assert drive(tiny(), outputs).status == 1, "a failed run waits for retry_failed=true"
    monkeypatch.undo()
    assert drive(tiny(), outputs, retry_failed=True).status == 0


@pytest.mark.slow
def test_a_failed_base_fails_what_stands_on_it(tiny, outputs, monkeypatch):
    def broken(plan, kind):
        with failures_kept(plan.cfg, plan):
            raise MemoryError("not enough memory")

    monkeypatch.setattr(job, "run", broken)
    outcome = drive(tiny(), outputs)
    assert [category for _, category, _ in outcome.failed] == ["out_of_memory"] + ["dense base"] * 6


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_stopped(tiny, outputs):
    outcome = drive(tiny("steps=4000"), outputs, timeout_minutes=0.02)
    assert "timeout" in {category for _, category, _ in outcome.failed}


@pytest.mark.slow
def test_after_a_failure_on_error_stop_starts_nothing_more(tiny, outputs, monkeypatch):
    def broken(plan, kind):
        with failures_kept(plan.cfg, plan):
            raise ValueError("impossible")

    monkeypatch.setattr(job, "run", broken)
    outcome = drive(tiny("seed=0,1"), outputs, on_error="stop")
    assert len([1 for _, category, _ in outcome.failed if category == "config"]) == 1
    assert outcome.missing


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_corrupts_nothing(tiny, outputs, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunResult, "write", full)
    outcome = drive(tiny(), outputs)
    assert outcome.status == 1
    assert any("No space left" in reason for _, _, reason in outcome.failed)
    monkeypatch.undo()
    assert drive(tiny(), outputs).status == 0


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_own_run_along(tiny, outputs):
    (plan,) = plans = tiny()
    guilty = next(run for run in plan.runs if run.label == "h1d8").folder.name

    def dying(runs, files):
        for run, file in zip(runs, files, strict=True):
            if run.folder.name == guilty:
                claim = {"host": os.uname().nodename, "pid": 2**22 + 1, "process_started": 0.0, "token": "x"}
                (run.folder / CLAIM).write_text(json.dumps(claim))
                raise RuntimeError("a worker process was terminated")
            work(file)
        return [None] * len(runs)

    outcome = Drive(plans, outputs, Options(), dying)()
    assert [(run.label, category) for run, category, _ in outcome.failed] == [("h1d8", "killed")]
    assert len(outcome.done) == 6


@pytest.mark.slow
def test_killed_in_mid_run_and_in_mid_write_it_goes_on_and_ends_with_the_same_numbers(tiny, outputs):
    longer = ["steps=60", "callbacks.checkpoint_every=5"]
    first = start(outputs, *longer)
    wait_for(lambda: list(outputs.glob("tiny/h1d8*/checkpoints/*.partial/last.ckpt")), first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = {f: f.stat().st_mtime_ns for f in outputs.glob("*/*/result.json")}
    assert len(done) == 2, "the base and the control"

    code = outputs.parent / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(KILLED_IN_MID_WRITE)
    second = start(outputs, *longer, PYTHONPATH=str(code))
    second.communicate(timeout=250)
    assert second.returncode == -signal.SIGKILL
    assert list(outputs.glob("tiny/h2d8*/.result.json.*")), "half of it is there"

    text, _ = (third := start(outputs, *longer)).communicate(timeout=250)
    assert third.returncode == 0, text
    assert {f: f.stat().st_mtime_ns for f in done} == done
    whole = outputs.parent / "whole"
    drive(tiny(*longer, f"output_dir={whole}"), whole)
    values = [load_study(where / "tiny").set_index("run_id")["val_loss"].sort_index() for where in (outputs, whole)]
    assert len(values[0]) == 3
    assert values[0].equals(values[1][values[0].index])


@pytest.mark.slow
def test_a_run_that_takes_the_sweep_along_twice_fails_and_the_rest_goes_on(outputs):
    code = outputs.parent / "code"
    code.mkdir(parents=True)
    (code / "crash.py").write_text(CRASH)
    classes = "indexer._target_=crash.Crash,dsa.indexers.LightningIndexer"
    given = ["indexer=h1d8", classes, "allow_targets=[crash]"]
    statuses = []
    for _ in range(3):
        process = start(outputs, *given, PYTHONPATH=str(code))
        text, _ = process.communicate(timeout=250)
        statuses.append(process.returncode)
    assert statuses == [-signal.SIGSEGV, -signal.SIGSEGV, 1], text
    assert sorted(results(outputs).values()) == ["failed"] + ["finished"] * 3, "base, control, the other condition"
    assert "killed" in text and "died 2 times" in text


def test_deaths_count_while_a_run_gets_no_further(tmp_path, monkeypatch):
    dead = {"host": os.uname().nodename, "pid": 2**22 + 1, "process_started": 0.0, "token": "x", "job_id": "7"}

    def deaths(before, **environment):
        (tmp_path / CLAIM).write_text(json.dumps(dead | before))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with claimed(tmp_path) as mine:
            assert mine
            return json.loads((tmp_path / CLAIM).read_text())["deaths"]

    assert deaths({"deaths": 1, "started": time.time()}) == 2
    (tmp_path / "checkpoints" / "sparse").mkdir(parents=True)
    assert deaths({"deaths": 1, "started": time.time() - 9}) == 0, "a checkpoint was saved since"
    assert deaths({"deaths": 1, "started": time.time() + 9}, SLURM_JOB_ID="7") == 1, "the same job, requeued"
    elsewhere = {"host": "elsewhere", "started": time.time() + 9, "deaths": 0}
    assert deaths(elsewhere, SLURM_JOB_ID="7") == 0, "though its heart beat a moment ago"


@pytest.mark.slow
def test_interrupted_it_says_how_to_go_on(outputs):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of who ignores it would too
    process = start(outputs, "steps=4000")
    wait_for(lambda: list(outputs.glob("dense/*/metrics.csv")), process)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 130, text
    assert "stopped; to go on: python " in text and "sweep.py --config-dir" in text
    assert "Traceback" not in text
    assert not list(outputs.glob("*/*/running.json"))


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(outputs):
    both = [start(outputs), start(outputs)]
    texts = [process.communicate(timeout=250)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sorted(results(outputs).values()) == ["finished"] * 4
    claims = [json.loads(file.read_text())["pid"] for file in outputs.glob("*/*/job.json")]
    assert len(claims) == 4
    assert {state(folder, "keep") for folder in outputs.glob("*/*-*")} == {"done"}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["a file", "/proc/outputs"])
def test_a_folder_that_cannot_be_written_is_said_at_once(outputs, place):
    if place == "a file":
        outputs.parent.mkdir(exist_ok=True)
        outputs.write_text("a file where the folder should be")
        place = str(outputs)
    process = start(outputs, f"output_dir={place}")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert text.count("Traceback") == 0
    assert place in text


def wait_for(there, process, seconds=200):
    end = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
