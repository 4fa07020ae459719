"""Two processes on one machine train what one process trains."""

import json
import math
import os
import sys
from pathlib import Path

import pytest
from conftest import QUIET, SMALL
from forked import launch

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
    done = launch(command, environment, children=True)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == 0, text
    (path,) = (outputs / "two" / "runs").glob("*/result.json")
    two = json.loads(path.read_text())
    one = train(compose([*chosen, f"output_dir={outputs / 'one'}"]))
    assert two["run_id"] == one.run_id
    for name in ("base_val_loss", "dense_val_loss"):
        assert two[name] == pytest.approx(getattr(one, name), abs=2e-4), name
    # A selection is discrete: the last bit of a sum may swap a key, or move an adaptive budget by one; and what a
    # step learned from it the next one starts from.
    for name, most in (("swap_val_loss", 5e-3), ("val_loss", 4e-2)):
        assert two[name] == pytest.approx(getattr(one, name), abs=most), name
    assert two["mean_k"] == pytest.approx(one.mean_k, rel=0.01)


def test_a_batch_that_cannot_be_shared_is_refused(outputs):
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=3"]
    command = [sys.executable, str(ROOT / "train.py"), *RUN, *overrides, f"output_dir={outputs}"]
    done = launch(command, children=True)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == 1
    assert "data.batch_size = 3" in text


SLICE = """
import sys
import torch
from dsa.data import Batch
from dsa.judging.evaluation import EvalMetrics

rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
metrics = EvalMetrics()
tokens = torch.arange(4).repeat(2, 1)
marked = torch.zeros(2, 4, dtype=torch.bool)
marked[:, 2] = rank == 0 and sys.argv[3] == "one"
logits = torch.zeros(2, 4, 8)
logits[..., 2] = 1.0
metrics.update(logits, Batch(tokens, tokens, marked))
print(metrics.compute().get("recall_slice_loss"))
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("met_by", ["one", "none"])
def test_the_recall_slice_is_judged_where_a_process_meets_none_of_it(met_by, tmp_path):
    command = [sys.executable, "-W", "error::UserWarning", "-c", SLICE]
    both = [launch([*command, str(rank), str(tmp_path / "store"), met_by]) for rank in range(2)]
    try:
        told = [process.communicate(timeout=60)[0].strip() for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    if met_by == "none":
        assert told == ["None", "None"]
    else:
        assert [float(value) for value in told] == pytest.approx([math.log(7 + math.e) - 1] * 2)
