"""What tests of whole runs share: settings with which one takes a second, and what it left."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from conftest import QUIET, SMALL
from forked import launch

from dsa import load_run
from dsa.artifacts.store import PLACES

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


def kill_when(process, seen):
    """kill -9 as soon as `seen()` holds; fails if the process ends before."""
    limit = time.monotonic() + 120
    while not seen():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
