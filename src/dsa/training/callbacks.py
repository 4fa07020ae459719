"""What happens beside the steps of a stage: a progress bar, atomic checkpoints, pictures of the selection."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.plugins.io import TorchCheckpointIO

from dsa.atomic import replacing
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
        with replacing(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, last.ckpt, written every so many optimiser steps.

    Only at the end of a step: after a resume Lightning would write one amid the first step's micro-batches, without
    the gradients they had added up.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            every_n_train_steps=every,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, StageModule)
        if (batch_idx + 1) % pl_module.accumulate == 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class SigtermAsBefore(pl.Callback):
    """Leaves SIGTERM to whoever handled it when the trainer was made.

    Lightning's own handler ends the program with status 0, which to SLURM means that a job it preempts is complete, and
    of several processes each calls a collective from within the handler.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)

    on_validation_start = on_train_start


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
