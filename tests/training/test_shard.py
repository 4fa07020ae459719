"""Two processes that keep a part of the model each train what one process trains, also when they are killed."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import QUIET, SMALL
from forked import launch

from dsa import compose, train
from dsa.artifacts.store import PLACES
from dsa.judging.checkpoints import read_weights
from dsa.training.settings import check_settings

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["recipe.dense.steps=6", "recipe.warmup.steps=2", "recipe.sparse.steps=4", "callbacks.checkpoint_every=2"]
RUN = [*SMALL, *QUIET, *STEPS, "dtype=fp32", "pattern=causal", "selector.k=8", "callbacks.maps_every=4"]

DYING = """
import os, signal, sys
import torch
from dsa import compose, train
from dsa.training.joint import JointTraining

begin = JointTraining.on_train_batch_start


def dying(self, batch, index):
    if index == 5:  # of 2 micro-batches a step: after the checkpoint of the second step
        own, states = list(self.parameters()), self.optimizers(use_pl_optimizer=False).state.values()
        kept = [sum(x.to_local().numel() for x in part) for part in (own, [state["exp_avg"] for state in states])]
        if self.global_rank == 0:
            print("keeps {} weights, {} states of {}".format(*kept, sum(one.numel() for one in own)), flush=True)
        torch.distributed.barrier()
        os.kill(os.getpid(), signal.SIGKILL)
    begin(self, batch, index)


JointTraining.on_train_batch_start = dying
train(compose(sys.argv[1:]), show=False)
"""


def trained(outputs, kind, name):
    (folder,) = (outputs / PLACES[kind]).glob(f"{name}-*")
    return read_weights(folder)


@pytest.mark.slow
def test_two_processes_with_a_part_each_train_what_one_trains_and_go_on_after_a_kill(outputs, tmp_path):
    script, two = tmp_path / "dying.py", tmp_path / "two"
    script.write_text(DYING)
    sharded = [*RUN, "trainer=fsdp", "trainer.accelerator=cpu", "trainer.accumulate=2", f"output_dir={two}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = launch([sys.executable, str(script), *sharded], environment, children=True)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == -signal.SIGKILL, text
    found = re.search(r"keeps (\d+) weights, (\d+) states of (\d+)", text)
    assert found, text
    weights, states, whole = map(int, found.groups())
    assert weights == states == whole // 2, "they lie in parts"
    assert list((two / PLACES["joint"]).glob("dense-*.partial/last.ckpt"))
    done = launch([sys.executable, str(ROOT / "train.py"), *sharded], environment, children=True)
    text, _ = done.communicate(timeout=300)
    assert done.returncode == 0, text
    one = train(compose([*RUN, f"output_dir={outputs}"]))
    for kind in ("base", "joint"):  # dense: a selection is discrete, so that the last bit of a sum may swap a key
        found, expected = trained(two, kind, "dense"), trained(outputs, kind, "dense")
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, atol=5e-5, rtol=0, msg=f"{kind}: {name}")
    for name, weight in trained(outputs, "indexers", "h2d32").items():
        far = (trained(two, "indexers", "h2d32")[name] - weight).abs() > 2e-4
        assert far.float().mean() < 0.01, name  # Adam steps alike for a gradient of rounding and for a large one
    found, expected = trained(two, "joint", "h2d32"), trained(outputs, "joint", "h2d32")
    assert {name: weight.shape for name, weight in found.items()} == {n: w.shape for n, w in expected.items()}
    (told,) = (two / "runs").glob("*/result.json")
    assert told.parent.name == one.run_id
    assert list(told.parent.glob("maps/selection_*.png"))


@pytest.mark.parametrize("name", ["fsdp", "deepspeed", "ddp_spawn"])
def test_strategies_of_lightning_that_nobody_tried_are_refused(name):
    with pytest.raises(ValueError, match=rf"^trainer\.strategy = {name}: give auto or ddp\.$"):
        check_settings(compose([f"trainer.strategy={name}"]))
