"""The number of threads: a remedy where they have too few cores, and one number for whatever is compared."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from study.studies import TINY, plans_of

from dsa import compose, load_run, machine, train
from dsa.judging import threads
from dsa.judging.checkpoints import DurableCheckpoints
from dsa.study.drive import Drive
from dsa.study.messages import show_threads
from dsa.study.options import Options
from dsa.study.sweep import in_process
from dsa.study.workers.job import work
from dsa.training import RunFailed

RUN = [*SMALL, *QUIET, "pattern=causal", "selector.k=8", "steps=24", "dtype=fp32", "callbacks.checkpoint_every=2"]
REMEDY = "OMP_NUM_THREADS={} python train.py"


@pytest.mark.parametrize(
    ("count", "there", "all_cores", "busy", "remedy"),
    [
        (2, 2, 2, 0.0, None),
        (2, 2, 2, 0.1, None),
        (2, 2, 2, 0.5, REMEDY.format(1)),
        (2, 2, 2, 1.0, REMEDY.format(1)),
        (1, 2, 2, 1.0, None),
        (8, 64, 64, 0.5, None),
        (32, 64, 64, 0.75, REMEDY.format(16)),
        (64, 4, 64, 0.0, REMEDY.format(4)),
        (2, 0.5, 2, 0.0, REMEDY.format(1)),
    ],
)
def test_threads_without_free_cores_are_told_with_the_command_that_helps(
    count, there, all_cores, busy, remedy, monkeypatch
):
    monkeypatch.setattr(threads, "cores", lambda: there)
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda: all_cores)
    monkeypatch.setattr(threads.Contention, "others", lambda self: busy)
    monkeypatch.setattr(threads, "LOOK", 0.0)
    monkeypatch.delenv(machine.WAITING, raising=False)
    told = threads.crowding(count, "train.py")
    if remedy is None:
        assert told is None
    else:
        assert remedy in told
        assert "OMP_WAIT_POLICY=passive python train.py" in told
        monkeypatch.setenv(machine.WAITING, "passive")
        assert machine.WAITING not in threads.crowding(count, "train.py")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, [1.5]),
        ({"cpu.max": "max 100000"}, []),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, [4.0]),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ({}, []),
    ],
)
def test_a_container_s_share_of_the_processor_is_known(files, cores, tmp_path):
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content + "\n")
    assert list(machine.quotas(tmp_path)) == cores


@pytest.mark.parametrize(
    ("load", "given", "policy"),
    [(0.0, None, None), (9.0, None, "passive"), (9.0, "active", "active"), (0.0, "passive", "passive")],
)
def test_on_a_loaded_machine_threads_wait_without_keeping_their_cores_busy_unless_told(
    load, given, policy, monkeypatch
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 2.0)
    monkeypatch.setenv(machine.WAITING, given or "")
    if given is None:
        monkeypatch.delenv(machine.WAITING)
    machine.wait_passively()
    assert os.environ.get(machine.WAITING) == policy


def test_more_threads_than_cores_are_not_taken_over_and_that_is_said(caplog):
    here = torch.get_num_threads()
    threads.use(10**6, "the checkpoint was made")
    assert torch.get_num_threads() == here
    assert re.search(rf"with 1000000 threads, .* it goes on with {here}", caplog.text)


def checkpoints_until(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run fail right after it saved the first checkpoint of a stage."""
    save = DurableCheckpoints.save_checkpoint

    def saved(self, state, path, storage_options=None):
        save(self, state, path)
        if stage in str(path):
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(DurableCheckpoints, "save_checkpoint", saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "place"), [("dense", "/bases/"), ("warmup", "/indexers/"), ("sparse", "/joint/h2d32")]
)
def test_a_resumed_stage_goes_on_with_the_threads_of_its_checkpoint_and_says_so(
    stage, place, outputs, monkeypatch, caplog
):
    torch.set_num_threads(1)
    with monkeypatch.context() as until:
        checkpoints_until(place, until)
        with pytest.raises(RunFailed):
            train(compose([*RUN, f"output_dir={outputs}"]))
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "cores", lambda: 2.0)
    caplog.clear()
    result = train(compose([*RUN, f"output_dir={outputs}"]))
    said = [record.message for record in caplog.records if "checkpoint of stage" in record.message]
    assert said == [
        f"the checkpoint of stage {stage} was made with 1 thread: it goes on with 1 and not with 2, which would round "
        "otherwise."
    ]
    assert set(result.provenance["threads_of"].values()) == {1}
    torch.set_num_threads(1)
    whole = train(compose([*RUN, f"output_dir={outputs.parent / 'whole'}"]))
    one, other = (load_run(run.folder).state_dict() for run in (result, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_study_that_goes_on_computes_with_the_threads_that_it_was_begun_with(outputs, capsys):
    def study(more: str, given: int) -> Drive:
        torch.set_num_threads(given)
        listed = f"indexer={more}"
        plans = plans_of("name=tiny", listed, *TINY, f"output_dir={outputs}", "exploratory=true", judge="swap")
        drive = Drive(plans, outputs, Options(), in_process(work))
        drive.threads = drive.begun_with() or given
        return drive

    first = study("h1d8", 1)
    assert first.begun_with() is None
    assert first().status == 0
    second = study("h1d8,h2d8", 2)
    assert second.begun_with() == 1
    assert second().status == 0
    made = [json.loads(path.read_text()) for path in outputs.glob("indexers/*/artifact.json")]
    assert [record["provenance"]["threads"] for record in made] == [1, 1]
    assert json.loads((outputs / "tiny" / "study.json").read_text())["threads"] == 1
    show_threads(1, 2)
    assert "begun with 1 thread: it goes on with 1 and not with 2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_beside_a_dense_control_of_other_threads_warns(outputs):
    torch.set_num_threads(1)
    dense = train(compose([*(one for one in RUN if one != "selector.k=8"), "selector=dense", f"output_dir={outputs}"]))
    record = outputs / "joint" / dense.artifacts["joint"] / "artifact.json"
    content = json.loads(record.read_text())
    content["provenance"]["threads"] = 2
    record.write_text(json.dumps(content))
    result = train(compose([*RUN, f"output_dir={outputs}"]))
    assert any("trained with 1 thread and its dense control with 2 threads" in told for told in result.warnings)
    assert json.loads((Path(result.folder) / "result.json").read_text())["provenance"]["threads_of"]["control"] == 2
