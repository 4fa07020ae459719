"""Train one sparse-attention language model: python train.py indexer=h2d32 pattern=local_global"""

import sys
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dsa import cli_errors
from dsa.config import config_dir, with_choices
from dsa.machine import wait_passively
from dsa.signals import read_to_the_end, stoppable

if TYPE_CHECKING:
    from dsa.artifacts.results import RunResult


class Refused(Exception):
    """One of several runs could not be made; one paragraph says why."""


@hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
def compose_and_train(cfg: DictConfig) -> "RunResult":
    """Train what the command line composes; the result is for the table of a multirun."""
    from dsa.spec import spec_of  # late: --help and --cfg need no torch
    from dsa.training import RunFailed, train

    job = HydraConfig.get()
    status, why = 2, ""
    try:
        spec = spec_of(with_choices(cfg, job.runtime.choices, list(job.overrides.task)))
        status = 1
        return train(spec, show=job.mode == RunMode.RUN or job.job.num == 0)  # once, and not for each of many runs
    except RunFailed as error:
        why = str(error)
    except ValueError as error:
        if status == 1:
            raise
        why = cli_errors.sentence(error)
    if job.mode == RunMode.MULTIRUN:
        raise Refused(why)
    print(f"error: {why}", file=sys.stderr)
    sys.exit(status)


def main() -> None:
    """The command; its status is 0, 1 after a failure, 2 if a setting is impossible, 130 or 143 if it was stopped."""
    wait_passively()
    with read_to_the_end(), stoppable("the same command goes on from the last checkpoint."):
        try:
            cli_errors.run(compose_and_train)
        except Refused as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
