"""Runs that are killed go on to the same weights, and their record has no gap."""

import csv
import shutil
import sys
from pathlib import Path

import pytest
import torch
from forked import launch

from dsa import compose, train
from training.whole_runs import RUN, artifact, kill_when, same, start, weights

pytestmark = pytest.mark.slow


def rows(folder: Path):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def timeless(table, names):
    return sorted(tuple(row.get(name) for name in names) for row in table)


MOMENTS = {
    "dense": "bases/*.partial/last.ckpt",
    "between base and warmup": "bases/*/artifact.json",
    "warmup": "indexers/.cohorts/*/last.ckpt",
    "between warmup and sparse": "indexers/*/artifact.json",
    "sparse": "joint/h2d32-*.partial/last.ckpt",
    "before the result": "joint/h2d32-*/artifact.json",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_same_weights_and_a_gapless_record(moment, uninterrupted, outputs):
    overrides = [*RUN, f"output_dir={outputs}"]
    kill_when(start(overrides), lambda: any(outputs.glob(MOMENTS[moment])))
    assert not any((outputs / "runs").glob("*/result.json"))
    result = train(compose(overrides))
    assert same(weights(result), weights(uninterrupted))
    assert result.val_loss == uninterrupted.val_loss
    for kind in ("run", *(kind for kind in result.artifacts if kind != "judgement")):
        places = [Path(r.folder) if kind == "run" else artifact(r, kind) for r in (uninterrupted, result)]
        whole, resumed = map(rows, places)
        kept = [name for name in whole[0] if not name.startswith("speed/")]
        assert timeless(resumed, kept) == timeless(whole, kept)
    steps = [int(row["step"]) for row in rows(Path(result.folder)) if row["kind"] == "train"]
    assert steps == list(range(13, 31))


def beside(result, outputs):
    """An empty place for another run on the base and the indexers of one that is finished."""
    for place in ("bases", "indexers"):
        shutil.copytree(Path(result.folder).parents[1] / place, outputs / place)
    return f"output_dir={outputs}"


def test_no_row_is_lost_when_killed_right_after_a_checkpoint(uninterrupted, outputs):
    overrides = [*RUN, beside(uninterrupted, outputs)]
    script = (
        "import os\n"
        "from dsa import compose, train\n"
        "from dsa.judging.checkpoints import DurableCheckpoints as Checkpoints\n"
        "save = Checkpoints.save_checkpoint\n"
        "def die(self, state, path, storage_options=None):\n"
        "    save(self, state, path)\n"
        "    if '/h2d32' in str(path) and state['global_step'] == 4: os._exit(9)\n"
        "Checkpoints.save_checkpoint = die\n"
        f"train(compose({overrides!r}))\n"
    )
    assert launch([sys.executable, "-c", script]).wait() == 9
    result = train(compose(overrides))
    steps = [int(row["step"]) for row in rows(Path(result.folder)) if row["kind"] == "train"]
    assert steps == list(range(13, 31))
    assert same(weights(result), weights(uninterrupted))


ADAPTIVE = [*RUN[:-1], "selector.min_k=2", "selector.target_mean=8", "dense_control=false"]


@pytest.fixture(scope="module", params=["adaptive_entropy", "adaptive_position", "adaptive_dynamic"])
def adaptive(request, tmp_path_factory):
    """Settings of a run with budgets that are calibrated, and what it gave."""
    settings = [*ADAPTIVE, f"selector={request.param}"]
    return settings, train(compose([*settings, f"output_dir={tmp_path_factory.mktemp('adaptive')}"]))


def test_recomputed_activations_leave_adaptive_budgets_as_they_are(adaptive, outputs):
    settings, whole = adaptive
    recomputed = train(compose([*settings, "memory.checkpoint=true", beside(whole, outputs)]))
    gains = [weights(r)["routers.0.selector.log_gain"] for r in (whole, recomputed)]
    assert gains[0] != 0
    torch.testing.assert_close(*gains)


@pytest.mark.parametrize("adaptive", ["adaptive_entropy"], indirect=True)
def test_adaptive_budgets_go_on_where_a_kill_left_them(adaptive, outputs):
    settings, whole = adaptive
    overrides = [*settings, beside(whole, outputs)]
    kill_when(start(overrides), lambda: any(outputs.glob("joint/*adaptive*.partial/last.ckpt")))
    assert same(weights(train(compose(overrides))), weights(whole))


def test_resume_false_starts_over(uninterrupted, outputs):
    overrides = [*RUN, beside(uninterrupted, outputs)]
    kill_when(start(overrides), lambda: any(outputs.glob(MOMENTS["sparse"])))
    (next(outputs.glob(MOMENTS["sparse"])).parent / "mark").touch()
    result = train(compose([*overrides, "resume=false"]))
    assert result.status == "finished"
    assert not any(outputs.rglob("mark"))
