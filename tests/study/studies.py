"""Studies small enough to plan at once and to train in seconds."""

import functools
import json
import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from composed import whole
from conftest import SMALL
from forked import Program, launch
from omegaconf import DictConfig

from dsa.config import config_dir
from dsa.study.drive import Drive
from dsa.study.jobs import IN_ORDER, ToDo
from dsa.study.options import Options
from dsa.study.outcome import Outcome
from dsa.study.plan import StudyPlan
from dsa.study.states import Results, Shelf
from dsa.study.sweep import in_process, plan_all
from dsa.study.workers.job import work

ROOT = Path(__file__).parents[2]
TINY = [*SMALL, "logger=csv", "pattern=causal", "selector.k=8", "steps=8", "timing=false", "stale=keep", "ops=blocked"]
FAST = ["data=mqar", "model=mqar", "pattern=causal", "selector.k=8", "exploratory=true"]
INDEXERS = [f"h{heads}d{dim}" for heads in (1, 2, 3, 4) for dim in (8, 16, 32, 64)][:14]
TWO = {"conditions": {"indexer": ["h1d8", "h2d8"]}}
CRASH = """
import os, signal
from dsa.indexers import LightningIndexer

class Crash(LightningIndexer):
    def forward(self, *given, **named):
        os.kill(os.getpid(), signal.SIGSEGV)
"""
FEW = """# @package plan
judge: swap
conditions: {indexer: [h1d8, h2d8]}
controls: [dense]
exploratory: true
"""
GONE = {"host": os.uname().nodename, "pid": 2**22 + 1, "process_started": 0.0, "token": "x"}
"""The claim of a process of this host that is no more."""


def jobs_of(plan, outputs):
    todo = ToDo(Shelf(outputs, "rerun"), Results("rerun"))
    return [job for kind in IN_ORDER for job in todo.jobs(kind, plan.applicable)]


def load(overrides: list[str]) -> DictConfig:
    """sweep.yaml as Hydra composes it, once for all tests."""
    return deepcopy(composed(tuple(overrides)))


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return whole(config_dir(), "sweep", list(overrides))


def plans_of(*arguments: str, **options: object) -> list[StudyPlan]:
    """The plans of a command line."""
    single = [a for a in arguments if "," not in a and "range(" not in a]
    return plan_all(load(single), list(arguments), load, Options(**options))  # type: ignore[arg-type]


def planned(yaml: dict[str, Any], *arguments: str, **options: object) -> StudyPlan:
    """The plan of a study's yaml with a command line."""
    cfg = load(["name=x", *(argument for argument in arguments if "," not in argument)])
    cfg.plan = yaml
    (plan,) = plan_all(cfg, ["name=x", *arguments], load, Options(**{"exploratory": True} | options))  # type: ignore[arg-type]
    return plan


def drive(plans: list[StudyPlan], outputs: Path, dispatch: object = None, **options: object) -> Outcome:
    """Carry a study through in this process."""
    return Drive(plans, outputs, Options(**options), dispatch or in_process(work))()  # type: ignore[arg-type]


def command(outputs: Path, *arguments: str) -> list[str]:
    """sweep.py on a study of two indexers and the dense control on one base: three runs, judged, tiny ones."""
    yaml = outputs.parent / "conf" / "study" / "few.yaml"
    if not yaml.exists():
        yaml.parent.mkdir(parents=True)
        yaml.write_text(FEW)
    given = ["study=few", "name=tiny", "seq_len=64", *TINY, f"output_dir={outputs}", *arguments]
    return [sys.executable, str(ROOT / "sweep.py"), "--config-dir", str(yaml.parents[1]), *given]


def start(outputs: Path, *arguments: str, **environment: str) -> Program:
    """sweep.py on that study, in a process of its own."""
    return launched(command(outputs, *arguments), **environment)


def launched(line: list[str], **environment: str) -> Program:
    """A command in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), os.environ.get("PYTHONPATH"))))
    return launch(line, env)


def results(outputs: Path) -> dict[str, str]:
    """The status of every run below a folder, by its name."""
    return {file.parent.name: json.loads(file.read_text())["status"] for file in outputs.glob("*/*/result.json")}
