"""What Hydra would build before the program begins: its own things, or what the command line admits."""

import os
import sys
from pathlib import Path

import hydra
import pytest
from forked import launch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode

from dsa.config import config_dir
from dsa.guard import guarded

ROOT = Path(__file__).parents[2]
CALLBACK = "hydra: {callbacks: {it: {_target_: foreign.Own}}}"
INNER = "hydra: {callbacks: {it: {_target_: hydra.experimental.callback.Callback, x: {_target_: foreign.run}}}}"
EVIL = {
    "a callback": (CALLBACK, "hydra.callbacks.it"),
    "a callback that admits itself": (f"allow_targets: [foreign]\n{CALLBACK}", "hydra.callbacks.it"),
    "a function as a callback": ("hydra: {callbacks: {it: {_target_: hydra.utils.get_object, path: x}}}", "no class"),
    "a class inside a callback": (INNER, "it.x._target_ = foreign.run"),
    "a callback by an interpolation": (
        "name: foreign.run\nhydra: {callbacks: {it: {_target_: '${name}'}}}",
        "foreign.run",
    ),
    "a handler": ("hydra: {job_logging: {handlers: {it: {class: foreign.run}}}}", "job_logging.handlers.it.class"),
    "a handler by an interpolation": (
        "name: foreign.run\nhydra: {hydra_logging: {handlers: {it: {class: '${name}'}}}}",
        "hydra_logging.handlers.it.class",
    ),
    "a formatter's factory": (
        "hydra: {job_logging: {formatters: {it: {(): foreign.run}}}}",
        "job_logging.formatters.it",
    ),
    "an object by its name": (
        "hydra: {job_logging: {handlers: {it: {class: logging.StreamHandler, stream: 'ext://foreign.run'}}}}",
        "ext://foreign.run: give one of ext://sys.stdout",
    ),
    "an environment variable": ("hydra: {job: {env_set: {CXX: /tmp/evil}}}", "env_set.CXX: only the command line"),
}


@pytest.fixture
def composed(tmp_path):
    """Composes train.yaml with an experiment of a folder that was given."""

    def compose(yaml, *overrides, mode=RunMode.RUN):
        folder = tmp_path / "theirs" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.yaml").write_text(f"# @package _global_\n{yaml}\n")
        GlobalHydra.instance().clear()
        given = [f"hydra.searchpath=[file://{folder.parent}]", "experiment=evil", *overrides]
        with initialized() as whole, guarded(given):
            return whole.compose_config("train", given, mode)

    return compose


class initialized(hydra.initialize_config_dir):
    def __init__(self):
        super().__init__(str(config_dir()), version_base="1.3")

    def __enter__(self):
        return GlobalHydra.instance().hydra


@pytest.mark.parametrize(("yaml", "words"), EVIL.values(), ids=EVIL.keys())
def test_a_yaml_makes_hydra_build_nothing_foreign(yaml, words, composed, mark):
    with pytest.raises(HydraException, match=words):
        composed(yaml)
    assert not mark.exists()


def test_a_launcher_takes_no_class_inside(composed):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    yaml = "hydra: {launcher: {additional_parameters: {it: {_target_: foreign.run}}}}"
    with pytest.raises(HydraException, match=r"hydra\.launcher\.additional_parameters\.it\._target_ = foreign\.run"):
        composed(yaml, "hydra/launcher=submitit_slurm", mode=RunMode.MULTIRUN)


def test_what_the_command_line_says_is_the_users_word(composed, mark):
    cfg = composed(CALLBACK, "allow_targets=[foreign]", "hydra/job_logging=default", "+hydra.job.env_set.CXX=g++")
    assert cfg.hydra.callbacks.it._target_ == "foreign.Own"
    assert cfg.hydra.job.env_set.CXX == "g++"


def test_a_pickled_configuration_is_refused_however_it_is_spelled():
    for spelled in ("--experimental-rerun=x", "--experimental-rerun", "--exp"):
        with pytest.raises(HydraException, match="unpickles"), guarded(["seed=1", spelled]):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train.py", "sweep.py"])
def test_the_programs_refuse_before_anything_runs(program, tmp_path, mark):
    folder = tmp_path / "theirs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(f"# @package _global_\n{CALLBACK}\n")
    line = [sys.executable, str(ROOT / program), "--config-dir", str(folder.parent), "experiment=evil"]
    path = os.pathsep.join([str(tmp_path / "code"), os.environ.get("PYTHONPATH", "")])
    more = ["name=x", "dry_run=true"] if program == "sweep.py" else []
    done = launch([*line, *more], {**os.environ, "PYTHONPATH": path}, tmp_path)
    text, _ = done.communicate(timeout=120)
    assert done.returncode == 2, text
    assert text.startswith("error: hydra.") and text.count("\n") == 1
    assert not mark.exists()
