"""A machine at its end (no memory, no disk) is told in a sentence that says what to do, and sorted by that."""

import errno
import logging
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from study.studies import TINY, load

from dsa import compose, train
from dsa.build import build_data
from dsa.judging.checkpoints import DurableCheckpoints, save_weights
from dsa.study.conclude import LOG, conclude
from dsa.study.workers.launch import run_sweep
from dsa.training import RunFailed
from dsa.training.errors import category, reason
from dsa.training.run import Run

NO_DISK = Path("/dev/full")  # takes no byte
needs_no_disk = pytest.mark.skipif(not NO_DISK.exists(), reason="this system has no /dev/full")
ENDLESS = 10**15  # elements that no machine has memory for


def torch_on_the_cpu() -> None:
    torch.empty(ENDLESS)


def python() -> None:
    bytearray(ENDLESS)


def the_system() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def the_graphics_card() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("ask", [torch_on_the_cpu, python, the_system, the_graphics_card])
def test_whoever_runs_out_of_memory_it_is_out_of_memory_and_says_what_to_make_smaller(ask):
    with pytest.raises(Exception) as ended:
        ask()
    assert category(ended.value) == "out_of_memory"
    told = reason(ended.value)
    assert all(setting in told for setting in ("data.batch_size", "seq_len", "trainer.accumulate"))


def test_a_tensor_of_another_shape_is_no_lack_of_memory():
    with pytest.raises(RuntimeError) as ended:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert category(ended.value) == "error"
    assert "data.batch_size" not in reason(ended.value)


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_says_so_and_what_to_do(outputs, monkeypatch):
    monkeypatch.setattr("dsa.training.base.fit", lambda *_: torch.empty(ENDLESS))
    with pytest.raises(RunFailed, match=r"can't allocate memory.*data\.batch_size") as ended:
        train(compose([*SMALL, *QUIET, "steps=8", f"output_dir={outputs}"]))
    assert ended.value.kind == "out_of_memory"


@contextmanager
def full(path):
    yield NO_DISK


def weights() -> None:
    save_weights({"layer": torch.zeros(10_000)}, Path())


def checkpoint() -> None:
    DurableCheckpoints().save_checkpoint({"layer": torch.zeros(10_000)}, Path("last.ckpt"))


def quota() -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@needs_no_disk
@pytest.mark.parametrize("write", [weights, checkpoint, quota])
def test_whatever_is_written_a_full_disk_is_told_as_a_full_disk(write, monkeypatch):
    monkeypatch.setattr("dsa.judging.checkpoints.replacing", full)
    with pytest.raises(Exception) as ended:
        write()
    assert category(ended.value) == "disk_full"
    assert "disk is full" in reason(ended.value)
    assert "inline_container" not in reason(ended.value)


@needs_no_disk
@pytest.mark.slow
def test_a_log_that_the_disk_has_no_place_for_is_told_once_and_the_run_goes_on(outputs, capsys, caplog):
    spec = compose([*SMALL, *QUIET, "steps=8", f"output_dir={outputs}"])
    folder = Run(spec, build_data(spec)).folder
    folder.mkdir(parents=True)
    (folder / "run.log").symlink_to(NO_DISK)
    caplog.set_level(logging.INFO, "dsa")
    assert train(spec).status == "finished"
    assert train(compose([*SMALL, *QUIET, "steps=8", "rerun=true", f"output_dir={outputs}"])).status == "finished"
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "Logging error" not in told
    for line in (said := [line for line in told.splitlines() if "cannot be written" in line]):
        assert line.startswith(f"warning: {folder / 'run.log'} cannot be written ([Errno 28] No space left on device)")
    assert 1 <= len(said) <= 2, "once a run"


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_ends_with_status_1_and_one_sentence(outputs, monkeypatch, capsys):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dsa.study.drive.write_json", no_space)
    given = ["name=x", *TINY, "exploratory=true", f"output_dir={outputs}"]
    with pytest.raises(SystemExit) as end:
        run_sweep(load(given), given, load, object())
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told == (
        "error: [Errno 28] No space left on device. The disk is full: free some space, then the same command goes on.\n"
    )


@needs_no_disk
def test_an_analysis_whose_own_log_has_no_place_is_told_in_its_sentence_alone(tmp_path, monkeypatch, capsys):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dsa.study.conclude.analyse_folder", no_space)
    (tmp_path / LOG).symlink_to(NO_DISK)
    assert conclude(tmp_path, timing=False) is False
    assert capsys.readouterr().err.count("\n") == 1
