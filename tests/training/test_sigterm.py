"""SIGTERM stops a program with a status that says so, and what it trained goes on."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import QUIET, SMALL
from forked import launch

from dsa import compose, train
from dsa.signals import Terminated, heeded
from dsa.training.module import Training

ROOT = Path(__file__).resolve().parents[2]
RUN = [*SMALL, *QUIET, "recipe=dense", "dtype=fp32", "callbacks.checkpoint_every=5"]
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def test_sigterm_is_heeded_where_nobody_handles_it_and_only_meanwhile():
    with pytest.raises(Terminated), heeded():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    try:
        with heeded():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert seen == ["theirs"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["-m"], TWO], ids=["one", "multirun", "two processes"])
def test_a_run_stopped_by_sigterm_says_how_to_go_on_and_ends_with_143(how, outputs):
    command = [sys.executable, str(ROOT / "train.py"), *how, *RUN, "steps=100000", f"output_dir={outputs}"]
    process = launch(command)
    limit = time.monotonic() + 120
    while not list(outputs.glob("bases/*.partial/last.ckpt")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.01)
    others = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143, text
    assert "stopped by SIGTERM: the same command goes on from what was saved." in text
    assert "Traceback" not in text
    assert not list(outputs.glob("*/*/result.json"))
    assert psutil.wait_procs(others, timeout=30)[1] == []


@pytest.mark.slow
def test_a_run_that_was_told_to_ignore_sigterm_trains_on(outputs, monkeypatch):
    """As submitit tells the jobs of SLURM: what starts them again is another signal, or the kill that follows."""
    seen, begin = [], Training.on_train_batch_start

    def stopped(self, batch, batch_idx):
        if batch_idx == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        begin(self, batch, batch_idx)

    monkeypatch.setattr(Training, "on_train_batch_start", stopped)
    signal.signal(signal.SIGTERM, lambda *_: seen.append("bypassed"))
    try:
        result = train(compose([*RUN, "steps=6", f"output_dir={outputs}"]))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert (seen, result.status) == (["bypassed"], "finished")


@pytest.mark.slow
def test_a_run_stopped_by_sigterm_says_where_it_goes_on_and_ends_in_the_loss_of_one_that_was_not(outputs, caplog):
    begin = Training.on_train_batch_start

    def stopped(self, batch, batch_idx):
        if batch_idx == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        begin(self, batch, batch_idx)

    expected = train(compose([*RUN, "steps=10", f"output_dir={outputs / 'whole'}"]))
    settings = [*RUN, "steps=10", f"output_dir={outputs / 'stopped'}"]
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with pytest.MonkeyPatch.context() as patch, heeded():
            patch.setattr(Training, "on_train_batch_start", stopped)
            with pytest.raises(SystemExit):
                train(compose(settings))
    finally:
        signal.signal(signal.SIGINT, interrupt)  # Lightning ignores it from the first interruption on
    assert not list((outputs / "stopped").glob("*/*/result.json"))
    caplog.clear()
    with caplog.at_level("INFO", logger="dsa"):
        assert train(compose(settings)).val_loss == expected.val_loss
    assert [r.message for r in caplog.records if "goes on" in r.message] == ["dense: goes on from step 5 of 10"]
