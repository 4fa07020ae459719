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
    """One of several runs could not be made.

    Args:
        why: in one paragraph.
        number: of the run among them, as Hydra counts.
    """

    def __init__(self, why: str, number: int) -> None:
        super().__init__(why, number)
        self.why, self.number = why, number

    def __str__(self) -> str:
        return self.why


@hydra.main(config_path=str(config_dir()), config_name="train", version_base="1.3")
def compose_and_train(cfg: DictConfig) -> "RunResult":
    """Train what the command line composes; the result is for the table of a multirun."""
    from dsa.spec import spec_of  # late: --help and --cfg need no torch
    from dsa.training import RunFailed, RunRefused, train

    job = HydraConfig.get()
    several = job.mode == RunMode.MULTIRUN
    status, why = 2, ""
    try:
        spec = spec_of(with_choices(cfg, job.runtime.choices, list(job.overrides.task)))
        status = 1
        first = not several or job.job.num == 0
        return train(spec, show=first, keep_refused=several)  # shown once, and not for each of many runs
    except RunRefused as error:
        status, why = 2, str(error)
    except RunFailed as error:
        why = str(error)
    except ValueError as error:
        if status == 1:
            raise
        why = cli_errors.sentence(error)
    if several:
        raise Refused(why, job.job.num)
    print(f"error: {why}", file=sys.stderr)
    sys.exit(status)


def main() -> None:
    """The command; its status is 0, 1 after a failure, 2 if a setting is impossible, 130 or 143 if it was stopped."""
    wait_passively()
    with read_to_the_end(), stoppable("the same command goes on from what was saved."):
        try:
            cli_errors.run(compose_and_train)
        except Refused as error:
            sys.exit(f"error: run #{error.number}: {error}")


if __name__ == "__main__":
    main()
