"""Files of weights: written whole or not at all, read as tensors alone, and fitted to the model that takes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from dsa.artifacts.atomic import replacing
from dsa.artifacts.store import WEIGHTS
from dsa.backbones import Backbone


class DurableCheckpoints(TorchCheckpointIO):
    """Checkpoints appear whole or not at all: a killed process leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with replacing(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


def save_weights(weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model's weights into an artifact's folder."""
    with replacing(folder / WEIGHTS) as temporary, temporary.open("wb") as file:
        torch.save(dict(weights), file)  # to a path it would not say why it cannot


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in an artifact's folder.

    Raises:
        ValueError: the file is there and cannot be read; the sentence names it.
    """
    path = folder / WEIGHTS
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: these weights cannot be read ({type(error).__name__}: {error}).") from None
    return weights


def fit_base(model: Backbone, folder: Path) -> None:
    """Give a backbone the weights of its base; one that came with its weights has them.

    Raises:
        ValueError: they cannot be read, or do not fit.
    """
    if not model.given:
        fit_weights(model, read_weights(folder), folder)


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Load weights into a module that has exactly these.

    Raises:
        ValueError: something is missing, or there and not in the module, or of another shape.
    """
    own = module.state_dict()
    other = [name for name, weight in weights.items() if name in own and own[name].shape != weight.shape]
    if other:
        sizes = f"{tuple(weights[other[0]].shape)} where the model has {tuple(own[other[0]].shape)}"
        raise ValueError(f"{where}: these weights do not fit the model: {other[0]} is {sizes}.")
    missing, unexpected = module.load_state_dict(weights, strict=False)
    if missing or unexpected:
        wrong = ", ".join([*missing, *unexpected][:4])
        raise ValueError(f"{where}: these weights do not fit the model: {wrong}.")
