"""Hydra's own multirun, which ends with one table of its runs: hydra/sweeper=runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


@dataclass
class RunsSweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.dsa_sweeper.runs.RunsSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="runs", node=RunsSweeperConf, provider="dsa")


class Kept:
    """A launcher that keeps what its jobs return: the sweeper raises at the first that failed.

    Args:
        launcher: which launches them.
    """

    def __init__(self, launcher: Launcher | None) -> None:
        assert launcher is not None
        self.launcher = launcher
        self.jobs: list[JobReturn] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        self.jobs += jobs
        return jobs


class RunsSweeper(BasicSweeper):
    """Every combination of what the command line lists, then the table, also where a run failed."""

    def sweep(self, arguments: list[str]) -> Any:
        kept: Any = Kept(self.launcher)
        self.launcher = kept
        try:
            return super().sweep(arguments)
        finally:
            if kept.jobs:
                from dsa.doors.multirun import show  # late: Hydra loads every plugin at every start

                show(kept.jobs)
