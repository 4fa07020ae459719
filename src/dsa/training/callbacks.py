"""What happens beside the steps of a stage: a progress bar, atomic checkpoints, pictures of the selection."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO

from dsa.training.maps import draw_selection
from dsa.training.module import StageModule
from dsa.training.world import first_process


class EndOfStep(pl.Callback):
    """Ends each step of a stage; Lightning calls callbacks before the module, and checkpoints after other callbacks."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        pl_module.end_step(batch_idx)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints appear whole or not at all: a killed process leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        temporary = f"{path}.writing"
        super().save_checkpoint(checkpoint, temporary, storage_options)
        os.replace(temporary, path)


def last_checkpoint(folder: Path, every: int) -> ModelCheckpoint:
    """Keeps one checkpoint, last.ckpt, written every so many steps."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_train_steps=every,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )


class StageBar(RichProgressBar):
    """Lightning's bar, with the stage's name and its steps instead of an epoch."""

    def _get_train_description(self, current_epoch: int) -> str:
        module = self.trainer.lightning_module
        assert isinstance(module, StageModule)
        return module.stage.name

    @property
    def total_train_batches(self) -> int:
        module = self.trainer.lightning_module
        assert isinstance(module, StageModule)
        return module.stage.steps * module.accumulate

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class SelectionMaps(pl.Callback):
    """Every so often a picture of which keys each layer selects, in the run folder and on the dashboard."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every  # [optimiser steps]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        if not first_process() or not pl_module.sparse or (batch_idx + 1) % (self.every * pl_module.accumulate):
            return
        step = pl_module.stage.offset + trainer.global_step
        path = self.folder / f"selection_{step:06d}.png"
        with torch.no_grad():
            draw_selection(pl_module.model, batch.tokens[:1], path)
        pl_module.run_log.mirror.image("select/map", step, path)
