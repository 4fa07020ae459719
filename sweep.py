"""Run a study of many trainings: python sweep.py study=quick"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(config_path="conf", config_name="sweep", version_base="1.3")
def main(cfg: DictConfig) -> str | None:
    """Train the one run that the sweeper planned and a launcher handed over."""
    from dsa.study.job import work

    return work(Path(cfg.planned))


if __name__ == "__main__":
    sys.argv.insert(1, "--multirun")  # or Hydra would explain a mistyped option in terms of a single run
    main()
