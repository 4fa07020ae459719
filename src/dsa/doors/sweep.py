"""Run a study of many runs: python sweep.py study=quick"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from dsa import cli_errors
from dsa.config import config_dir
from dsa.machine import wait_passively
from dsa.signals import read_to_the_end, stoppable

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
}
ASKING = ("--cfg", "-c", "--info", "-i", "--shell-completion", "-sc", "--help", "-h", "--hydra-help", "--version")


@hydra.main(config_path=str(config_dir()), config_name="sweep", version_base="1.3")
def plan_or_work(cfg: DictConfig) -> Any:
    """Do the one job that the sweeper planned and a launcher handed over."""
    from dsa.study.workers.job import work

    return work(Path(cfg.planned))


def check_launcher(arguments: list[str]) -> None:
    """Say how to install a launcher that is not there; Hydra would only list those that are."""
    for name, (package, extra) in LAUNCHERS.items():
        if f"hydra/launcher={name}" in arguments and find_spec(package) is None:
            sys.exit(f"error: hydra/launcher={name}: not installed; pip install -e '.[{extra}]' -c constraints.txt")


def asks_hydra(arguments: list[str]) -> bool:
    """Whether Hydra is only to show something (a configuration, what is installed, completions) and to run nothing."""
    return any(argument.split("=")[0] in ASKING for argument in arguments)


def main() -> None:
    """The command; its status is 0 all done, 1 something failed, 2 the study cannot be planned, 130 interrupted."""
    check_launcher(sys.argv)
    if not asks_hydra(sys.argv[1:]):
        sys.argv.insert(1, "--multirun")  # or Hydra would explain a mistyped option in terms of a single run
    wait_passively()
    with read_to_the_end(), stoppable("the same command goes on where it was."):
        cli_errors.run(plan_or_work)


if __name__ == "__main__":
    main()
