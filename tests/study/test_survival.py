"""Studies that lose a worker or their process, and studies that meet."""

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from dsa import load_study
from dsa.artifacts.store import Store
from dsa.study.drive import Drive
from dsa.study.options import Options
from dsa.study.sweep import check_devices
from dsa.study.workers.claim import CLAIM, ENDED, claimed
from dsa.study.workers.job import work
from study.studies import CRASH, GONE, drive, results, start

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


def pids(outputs: Path) -> list[int]:
    return [json.loads(file.read_text())["pid"] for file in outputs.glob(f".jobs/*/{ENDED}")]


def first_job(plans, outputs, kind="base", dispatch=lambda jobs, files: []):
    """A drive, and the first job of a kind that it would launch."""
    one = Drive(plans, outputs, Options(), dispatch)
    one.begin()
    return one, one.jobs(kind, one.runs)[0]


@pytest.mark.slow
def test_a_job_that_another_study_does_is_left_to_it(tiny, outputs, monkeypatch):
    (one, mine), (other, theirs) = first_job(tiny(), outputs), first_job(tiny("name=other"), outputs)
    assert mine.folder == theirs.folder, "a base is made once for all studies"
    files = [drive.file(job) for drive, job in ((one, mine), (other, theirs))]
    assert files[0] != files[1], "each sweep says itself what is to be done"
    with claimed(mine.folder):
        assert one.left("base", one.runs) == [] and one.under_way(mine)
        assert work(files[0]) is None
        assert not list(outputs.glob("bases/*")), "its turn came while the other made it"
    assert one.left("base", one.runs) == [mine], "given up without a base: made here after all"
    assert work(files[1]) is None
    made = {file: file.stat().st_mtime_ns for file in outputs.glob("bases/*/*")}
    assert one.jobs("base", one.runs) == [], "the other has made it meanwhile"
    monkeypatch.setattr("dsa.training.base.fit", lambda *_: pytest.fail("what is done is not done again"))
    assert work(files[0]) is None
    assert {file: file.stat().st_mtime_ns for file in made} == made


@pytest.mark.slow
def test_two_studies_started_together_train_what_they_share_once(outputs):
    sweeps = [start(outputs, f"name={name}") for name in ("one", "two")]
    for sweep in sweeps:
        text, _ = sweep.communicate(timeout=300)
        assert sweep.returncode == 0, text
    done = [json.loads(file.read_text())["status"] for file in outputs.glob("*/*/result.json")]
    assert done == ["finished"] * 6
    assert len(list(outputs.glob("bases/dense-*"))) == 1
    assert len(list(outputs.glob("indexers/h*"))) == 2
    assert len(list(outputs.glob("judgements/*.json"))) == 4, "two conditions, one window for both, dense"


@pytest.mark.slow
def test_runs_on_several_devices_are_refused_where_a_run_has_one_process(tiny):
    with pytest.raises(ValueError, match="submitit_slurm"):
        check_devices(tiny("trainer.devices=2"), 1)
    with pytest.raises(ValueError, match="4 processes a node"):
        check_devices(tiny(), 4)
    check_devices(tiny("trainer.devices=2"), 2)


@pytest.mark.slow
def test_finished_runs_are_not_repeated_and_other_studies_train_nothing_anew(tiny, outputs):
    assert drive(tiny(), outputs).status == 0
    before = {file: file.stat().st_mtime_ns for file in outputs.glob("*/*/*") if file.is_file()}
    assert drive(tiny(), outputs).status == 0
    assert {file: file.stat().st_mtime_ns for file in before if file.name != "study.json"} == before
    kinds = []
    outcome = drive(tiny("name=other"), outputs, lambda jobs, files: kinds.extend(jobs) or [work(f) for f in files])
    assert (outcome.status, [job.kind for job in kinds]) == (0, ["judge"])
    own, other = (load_study(outputs / name).sort_values("run_id") for name in ("tiny", "other"))
    assert list(own["run_id"]) == list(other["run_id"])
    assert list(own["val_loss"]) == list(other["val_loss"])
    assert set(other["study"]) == {"other"}


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_own_run_along(tiny, outputs):
    (plan,) = plans = tiny()
    guilty = next(run for run in plan.runs if run.label == "h1d8").key

    def dying(jobs, files):
        for job, file in zip(jobs, files, strict=True):
            if job.kind == "judge" and guilty in [run.key for run in job.runs]:
                job.folder.mkdir(parents=True, exist_ok=True)
                claim = GONE | {"deaths": job.deaths, "started": time.time()}
                (job.folder / CLAIM).write_text(json.dumps(claim))
                raise RuntimeError("a worker process was terminated")
            work(file)
        return [None] * len(jobs)

    outcome = Drive(plans, outputs, Options(), dying)()
    assert [(run.label, category) for run, category, _ in outcome.failed] == [("h1d8", "killed")]
    assert len(outcome.done) == 6


@pytest.mark.slow
def test_killed_in_mid_run_and_in_mid_write_it_goes_on_and_ends_with_the_same_numbers(tiny, outputs):
    longer = ["steps=60", "callbacks.checkpoint_every=2"]
    first = start(outputs, *longer)
    wait_for(lambda: list(outputs.glob("indexers/.cohorts/*/last.ckpt")), first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    done = {f: f.stat().st_mtime_ns for f in outputs.glob("bases/*/artifact.json")}
    assert len(done) == 1

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
    assert sorted(results(outputs).values()) == ["failed"] + ["finished"] * 2, "the control, the other condition"
    assert "killed" in text and "died 2 times" in text


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_says_how_to_go_on(outputs, number, status):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of who ignores it would too
    process = start(outputs, "steps=4000")
    wait_for(lambda: list(outputs.glob("bases/*/metrics.csv")), process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == status, text
    assert "stopped; to go on: python " in text and "sweep.py --config-dir" in text
    assert "Traceback" not in text
    assert not list(outputs.glob(f".jobs/*/{CLAIM}"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_a_stopped_sweep_takes_along_count_as_no_deaths(outputs, number):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(outputs, "steps=4000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    wait_for(lambda: list(outputs.glob("bases/*/metrics.csv")), process)
    (claim,) = outputs.glob(f".jobs/*/{CLAIM}")
    worker = json.loads(claim.read_text())["pid"]
    assert worker != process.pid
    process.send_signal(number)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, text
    assert not claim.exists() and not psutil.pid_exists(worker)


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(outputs):
    both = [start(outputs, "seed=0,1"), start(outputs, "seed=0,1")]
    texts = [process.communicate(timeout=250)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sorted(results(outputs).values()) == ["finished"] * 6
    kinds = Counter(file.parent.name.split("-")[0] for file in outputs.glob(f".jobs/*/{ENDED}"))
    assert (kinds["base"], kinds["cohort"]) == (2, 2), "one for each seed"
    assert kinds["judge"] >= 2, "what the other has left of a batch is a job of its own"
    assert set(pids(outputs)) <= {process.pid for process in both}


@pytest.mark.slow
def test_a_sweep_that_is_stopped_for_a_while_makes_no_other_record_failures(outputs, monkeypatch):
    first = start(outputs, "steps=150")
    wait_for(lambda: list(outputs.glob("bases/*/metrics.csv")), first)
    first.send_signal(signal.SIGSTOP)
    (claim,) = outputs.glob(f".jobs/*/{CLAIM}")
    os.utime(claim, (time.time() - 90,) * 2)
    second = start(outputs, "steps=150")
    time.sleep(8)
    assert second.poll() is None
    first.send_signal(signal.SIGCONT)
    texts = [process.communicate(timeout=250)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], texts
    assert sorted(results(outputs).values()) == ["finished"] * 3


@pytest.mark.slow
def test_a_run_under_the_lock_of_another_process_is_waited_for(tiny, outputs):
    drive(tiny(), outputs)
    one, job = first_job(tiny("name=other"), outputs, "judge")
    file = one.file(job)
    run = job.runs[0]
    with Store(outputs).alone(f"{run.study}-{run.hash}", wait=False):
        thread = threading.Thread(target=work, args=(file,))
        thread.start()
        time.sleep(2)
        assert thread.is_alive() and not (run.folder / "result.json").exists()
    thread.join(timeout=60)
    assert json.loads((run.folder / "result.json").read_text())["status"] == "finished"


def test_running_a_finished_study_again_is_refused_with_what_to_give_instead(tiny):
    with pytest.raises(ValueError, match=r"rerun = true: .* Give another output_dir"):
        tiny("rerun=true")


def wait_for(there, process, seconds=200):
    end = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
