"""Trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dsa.build import build_model
from dsa.model import SparseTransformer
from dsa.training.fit import load_weights
from dsa.training.result import read_result
from dsa.training.run import final_weights


def load_run(path: str | Path, allow_targets: Sequence[str] = ()) -> SparseTransformer:
    """The model of a finished run with its trained weights, in evaluation mode.

    Args:
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run.
    """
    folder = Path(path)
    result = read_result(folder)
    if result is None or result.status != "finished":
        state = "no result" if result is None else f"status {result.status}"
        raise FileNotFoundError(f"{folder}: {state}; load_run reads finished runs.")
    folder = Path(result.reused_from or folder)  # a run that another study finished lies there
    weights = final_weights(folder)
    shapes = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    cfg: Any = OmegaConf.load(folder / "config.yaml")
    cfg.allow_targets = list(allow_targets)
    model = build_model(cfg, shapes["model.embedding.weight"].shape[0])
    load_weights(model, weights)
    return model.eval()
