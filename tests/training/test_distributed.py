"""Two processes on one machine train what one process trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import QUIET, SMALL

from dsa import compose, train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
RUN = [*SMALL, *QUIET, "steps=12", "pattern=causal", "dtype=fp32"]
TOPK = ["selector.k=8"]
ADAPTIVE = ["selector=adaptive_entropy", "selector.min_k=2", "selector.target_mean=8"]


@pytest.mark.parametrize(("accumulate", "selector"), [(1, TOPK), (2, TOPK), (2, ADAPTIVE)])
def test_two_processes_give_the_loss_of_one_at_equal_global_batch(outputs, accumulate, selector):
    chosen = [*RUN, *selector]
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", f"trainer.accumulate={accumulate}"]
    command = [sys.executable, str(ROOT / "train.py"), *chosen, *overrides, f"output_dir={outputs / 'two'}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (outputs / "two" / "runs").glob("*/result.json")
    two = json.loads(path.read_text())
    one = train(compose([*chosen, f"output_dir={outputs / 'one'}"]))
    assert two["run_id"] == one.run_id
    for name in ("base_val_loss", "dense_val_loss"):
        assert two[name] == pytest.approx(getattr(one, name), abs=2e-4), name
    # A selection is discrete: the last bit of a sum may swap a key, or move an adaptive budget by one.
    for name in ("val_loss", "swap_val_loss"):
        assert two[name] == pytest.approx(getattr(one, name), abs=5e-3), name
    assert two["mean_k"] == pytest.approx(one.mean_k, rel=0.01)


def test_a_batch_that_cannot_be_shared_is_refused(outputs):
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=3"]
    command = [sys.executable, str(ROOT / "train.py"), *RUN, *overrides, f"output_dir={outputs}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "data.batch_size = 3" in done.stderr + done.stdout
