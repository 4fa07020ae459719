"""What tests of whole runs share: settings with which one takes a second, and what it left."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from forked import launch

from dsa import compose, load_run, train
from dsa.artifacts.store import PLACES
from dsa.training.module import Training

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["recipe.dense.steps=12", "recipe.warmup.steps=8", "recipe.sparse.steps=10"]
OFTEN = ["callbacks.checkpoint_every=2", "callbacks.val_every=5"]
RUN = [*SMALL, *QUIET, *STEPS, *OFTEN, "dtype=fp32", "pattern=causal", "selector.k=8"]


def weights(result):
    return load_run(result.folder).state_dict()


def artifact(result, kind):
    """The folder of one of a run's artifacts; a dense control is a joint training."""
    place = PLACES["joint" if kind == "control" else kind]
    return Path(result.folder).parents[1] / place / result.artifacts[kind]


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def start(overrides):
    return launch([sys.executable, str(ROOT / "train.py"), *overrides], os.environ | {"WANDB_MODE": "offline"})


def interrupted_in_both_stages(overrides, monkeypatch):
    """A run that Ctrl-C stops in the third step of its warm-up, then in the fifth of joint training, and that goes on
    both times."""
    begin, left = Training.on_train_batch_start, [3, 5]

    def dying(self, *given):
        if self.stage.name != "dense" and left:
            left[0] -= 1
            if left[0] == 0:
                left.pop(0)
                raise KeyboardInterrupt
        begin(self, *given)

    monkeypatch.setattr(Training, "on_train_batch_start", dying)
    spec = compose(overrides)
    for _ in range(2):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(spec)
    parts = train(spec)
    assert not left
    return parts


def kill_when(process, seen):
    """kill -9 as soon as `seen()` holds; fails if the process ends before."""
    limit = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
