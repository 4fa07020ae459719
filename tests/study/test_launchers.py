"""Hydra's launchers for real, on a study that takes seconds."""

import json

import pytest

from dsa.study.workers.queue import QUEUED
from study.studies import CRASH, start


def statuses(outputs):
    return sorted(json.loads(file.read_text())["status"] for file in outputs.glob("*/*/result.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "settings"),
    [
        ("hydra_plugins.hydra_joblib_launcher", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("hydra_plugins.hydra_submitit_launcher", ["hydra/launcher=submitit_local"]),
        ("hydra_plugins.hydra_ray_launcher", ["hydra/launcher=ray"]),
    ],
)
def test_a_study_runs_on_this_launcher(package, settings, outputs):
    pytest.importorskip(package)
    process = start(outputs, *settings)
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 0, text
    assert statuses(outputs) == ["finished"] * 3
    assert "in all; the 3 jobs done now took" in text
    notes = {json.loads(file.read_text())["cluster"] for file in outputs.glob(f".jobs/*/{QUEUED}")}
    assert notes == {"submitit_local": {"local"}, "ray": {"ray"}}.get(settings[0].split("=")[1], set())


@pytest.mark.slow
def test_a_run_that_crashes_its_worker_fails_alone(outputs):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code = outputs.parent / "code"
    code.mkdir(parents=True)
    (code / "crash.py").write_text(CRASH)
    process = start(
        outputs,
        "indexer=h1d8",
        "indexer._target_=dsa.indexers.LightningIndexer,crash.Crash",
        "allow_targets=[crash]",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        PYTHONPATH=str(code),
    )
    text, _ = process.communicate(timeout=400)
    assert process.returncode == 1, text
    assert statuses(outputs) == ["failed"] + ["finished"] * 2, text
    assert "killed" in text
