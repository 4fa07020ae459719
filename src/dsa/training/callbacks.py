"""What happens beside the steps of a stage: a progress bar, checkpoints, pictures of the selection."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar

from dsa.judging.world import first_process
from dsa.training.maps import selection_figure
from dsa.training.module import Training


class EndOfStep(pl.Callback):
    """Ends each step of a stage; Lightning calls callbacks in order, so this is the first of them."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Training)
        pl_module.end_step(batch_idx)


class CompiledLayers(pl.Callback):
    """Has torch compile the layers of the model that is to learn, before it is taken apart for several processes."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, Training)
        pl_module.model.compile_layers()


class LastCheckpoint(pl.Callback):
    """Keeps one checkpoint, written every so many steps, never in the middle of an accumulation."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every  # [optimiser steps]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Training)
        if (batch_idx + 1) % (self.every * pl_module.accumulate) == 0:
            trainer.save_checkpoint(self.path)


class StageBar(RichProgressBar):
    """Lightning's bar, with the stage's name and its steps instead of an epoch."""

    def _get_train_description(self, current_epoch: int) -> str:
        module = self.trainer.lightning_module
        assert isinstance(module, Training)
        return module.stage.name

    @property
    def total_train_batches(self) -> int:
        module = self.trainer.lightning_module
        assert isinstance(module, Training)
        return module.stage.steps * module.accumulate

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class SelectionMaps(pl.Callback):
    """Every so often, and at the end, a picture of which keys each layer selects, in the run folder and on the
    dashboard."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every  # [optimiser steps]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Training)
        done, within = divmod(batch_idx + 1, pl_module.accumulate)
        if not pl_module.sparse or within or (done % self.every and done < pl_module.stage.steps):
            return
        figure = selection_figure(pl_module.model, batch.tokens)  # in every process: they may have a part each
        if first_process():
            step = pl_module.stage.offset + trainer.global_step
            path = self.folder / f"selection_{step:06d}.png"
            self.folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=110)
            pl_module.run_log.picture("select/map", step, path)
