"""Train one sparse-attention language model: python train.py indexer=h2d32 pattern=local_global"""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dsa import mistakes
from dsa.config import with_choices
from dsa.signals import stoppable
from dsa.training import RunFailed, train


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Train what the command line composes."""
    job = HydraConfig.get()
    try:
        train(with_choices(cfg, job.runtime.choices, list(job.overrides.task)))
    except RunFailed as error:
        if job.mode == RunMode.MULTIRUN:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    with stoppable("the same command goes on from the last checkpoint."):
        try:
            mistakes.run(main)
        except RunFailed as failed:  # of a multirun
            sys.exit(f"error: {failed}")
