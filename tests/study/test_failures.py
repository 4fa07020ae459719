"""A run that fails, or a disk, takes along what stands on it and nothing else."""

import pytest

from dsa.artifacts.results import RunResult
from dsa.study.workers import job as worker
from dsa.study.workers.failures import Failure
from dsa.training.errors import SPACE
from dsa.training.failures import failures_kept
from study.studies import drive, results, start


@pytest.mark.slow
def test_a_run_that_fails_is_recorded_and_the_rest_goes_on(tiny, outputs, monkeypatch):
    whole = worker.execute

    def fragile(run, models, wait, timed):
        if run.dashboard.job_type == "h1d8":
            with failures_kept(run.spec, run):
                raise FloatingPointError("loss is nan")
        return whole(run, models, wait, timed)

    monkeypatch.setattr(worker, "execute", fragile)
    outcome = drive(tiny(), outputs)
    assert [(run.label, category) for run, category, _ in outcome.failed] == [("h1d8", "nan")]
    assert len(outcome.done) == 6
    assert drive(tiny(), outputs).status == 1, "a failed run waits for retry_failed=true"
    monkeypatch.undo()
    assert drive(tiny(), outputs, retry_failed=True).status == 0


@pytest.mark.slow
def test_a_base_that_fails_fails_what_stands_on_it_and_says_which(tiny, outputs, monkeypatch):
    def broken(*_):
        raise MemoryError("not enough memory")

    monkeypatch.setattr("dsa.training.base.fit", broken)
    outcome = drive(tiny(), outputs)
    assert [category for _, category, _ in outcome.failed] == ["out_of_memory"] * 7
    assert sorted(results(outputs).values()) == ["failed"] * 7
    for _, _, reason in outcome.failed:
        assert (
            reason.startswith("the base dense-tiny~-mqar~-L64-s0-") and "which it needs, failed: not enough" in reason
        )
    monkeypatch.undo()
    assert drive(tiny("name=other"), outputs).status == 1, "another study does not try again either"
    assert drive(tiny(), outputs, retry_failed=True).status == 0


@pytest.mark.slow
def test_an_indexer_that_diverges_fails_its_own_runs_alone(tiny, outputs, monkeypatch):
    whole = worker.make_indexers

    def diverging(store, wishes, *more):
        bad = next(need.hash for spec, need in wishes if spec.indexer.option == "h1d8")
        return whole(store, [wish for wish in wishes if wish[1].hash != bad], *more) | {bad: "loss is nan"}

    monkeypatch.setattr(worker, "make_indexers", diverging)
    outcome = drive(tiny(), outputs)
    (failed,) = outcome.failed
    assert (failed[0].label, failed[1]) == ("h1d8", "nan")
    assert failed[2].startswith("the indexers h1d8-tiny~-mqar~-L64-s0-")
    assert len(outcome.done) == 6


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_stopped(tiny, outputs):
    outcome = drive(tiny("steps=4000"), outputs, timeout_minutes=0.02)
    assert {category for _, category, _ in outcome.failed} == {"timeout"}


@pytest.mark.slow
def test_after_a_failure_on_error_stop_starts_nothing_more(tiny, outputs, monkeypatch):
    def broken(run, models, wait, timed):
        with failures_kept(run.spec, run):
            raise ValueError("impossible")

    monkeypatch.setattr(worker, "execute", broken)
    outcome = drive(tiny("seed=0,1"), outputs, on_error="stop")
    assert [category for _, category, _ in outcome.failed] == ["config"]
    assert len(outcome.missing) == 13


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_corrupts_nothing(tiny, outputs, monkeypatch):
    def full(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunResult, "write", full)
    outcome = drive(tiny(), outputs)
    assert outcome.status == 1
    assert {(category, reason) for _, category, reason in outcome.failed} == {
        ("disk_full", f"[Errno 28] No space left on device. {SPACE}")
    }  # fmt: skip
    monkeypatch.undo()
    assert drive(tiny(), outputs).status == 0


def test_a_failure_that_no_folder_tells_keeps_its_category(tiny, outputs):
    def dispatch(jobs, files):
        return [Failure("out_of_memory", "MemoryError: too much")] * len(jobs)

    outcome = drive(tiny(), outputs, dispatch)
    assert {(category, reason) for _, category, reason in outcome.failed} == {
        ("out_of_memory", "MemoryError: too much")
    }  # fmt: skip
    assert len(outcome.failed) == 7


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
