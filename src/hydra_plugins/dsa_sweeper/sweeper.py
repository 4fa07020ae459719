"""A Hydra sweeper that plans a study and hands its jobs to whichever launcher is configured."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConf:
    _target_: str = "hydra_plugins.dsa_sweeper.sweeper.StudySweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="dsa", node=StudySweeperConf, provider="dsa")


class StudySweeper(Sweeper):
    """The shell around dsa.study.sweep; imports it late, since Hydra loads every plugin at every start."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.context, self.composed = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Carry the study through; exits with its status, since Hydra's main() returns nothing."""
        from dsa.study.workers.launch import run_sweep

        return run_sweep(self.composed, arguments, self.compose, self.launcher)

    def compose(self, overrides: list[str]) -> DictConfig:
        """sweep.yaml with these overrides, Hydra's own node included."""
        return self.context.config_loader.load_configuration(
            config_name=self.composed.hydra.job.config_name, overrides=overrides, run_mode=RunMode.RUN, from_shell=False
        )
