"""Loss, perplexity, accuracy and exact match on the fixed evaluation batches."""

import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterable, Sequence
from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric

from dsa import ops
from dsa.backbones import Backbone, Pass
from dsa.data import IGNORE, Batch, DataModule
from dsa.devices import Devices
from dsa.judging.checkpoints import DurableCheckpoints

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", ".*exists and is not empty.*")
warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # a pretrained model stays as it is used
warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


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


def make_trainer(
    devices: Devices, dtype: str, callbacks: Sequence[pl.Callback] = (), **arguments: object
) -> pl.Trainer:
    """A Trainer for one fit or one evaluation, on these devices."""
    defaults: dict[str, object] = {
        "accelerator": devices.accelerator,
        "devices": devices.devices,
        "strategy": devices.strategy,
        "num_nodes": devices.num_nodes,
        "precision": {"fp32": "32-true", "bf16": "bf16-mixed"}[dtype],
        "callbacks": [SigtermAsBefore(), *callbacks],
        "plugins": [DurableCheckpoints()],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,  # its tensors, once made, could not serve in training
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**defaults | arguments)  # type: ignore[arg-type]


class Evaluation(pl.LightningModule):
    """Measures a model on the fixed evaluation batches.

    Args:
        sparse: attention runs on the selection.
    """

    def __init__(self, model: Backbone, data: DataModule, sparse: bool) -> None:
        super().__init__()
        self.model, self.data, self.sparse = model, data, sparse
        self.metrics = EvalMetrics()
        self.values: dict[str, float] = {}
        self.samples: dict[str, list[float]] = {}

    def val_dataloader(self) -> Iterable[Batch]:
        return self.data.eval_loader(self.global_rank, self.trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        first = (batch_idx * self.trainer.world_size + self.global_rank) * len(batch.tokens)
        self.metrics.update(self.model.run(batch.tokens, Pass(sparse=self.sparse)).logits, batch, first)

    def on_validation_epoch_end(self) -> None:
        self.values, self.samples = self.metrics.compute(), self.metrics.samples()
        self.metrics.reset()
        ops.settle()


DIGITS = 6  # of what is kept of each row
DEPTHS = 5  # equal parts of the places where an answer can lie, the first the farthest from the question


class EvalMetrics(nn.Module):
    """Loss, perplexity and accuracy over the positions that ask for something, and the loss on the recall slice.

    Where rows have an answer of their own also the exact match: the share of rows of which every asked token is right,
    each with the right ones before it; of all, and by the depth at which the answer lies. These rows, and those of a
    text, are told one by one too.

    Raises:
        FloatingPointError: a loss is not a number; torchmetrics would leave it out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss, self.accuracy, self.slice_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.rows = (
            CatMetric()
        )  # number and loss of each; where rows have an answer of their own its exact match and depth
        self.exact, self.parts = MeanMetric(), nn.ModuleList(MeanMetric() for _ in range(DEPTHS))

    @property
    def exact_at(self) -> list[MeanMetric]:
        """Exact match by depth."""
        return cast(list[MeanMetric], list(self.parts))

    @torch.no_grad()
    def update(self, logits: Tensor, batch: Batch, first: int = 0) -> None:
        """Take in a batch.

        Args:
            first: number of its first row among all that are evaluated.
        """
        asked = batch.targets != IGNORE
        answers, wanted = logits[asked].float(), batch.targets[asked]
        losses = nn.functional.cross_entropy(answers, wanted, reduction="none")
        if not losses.isfinite().all():
            raise FloatingPointError(
                "validation loss is not a number: the weights diverged. Give smaller rates (recipe)."
            )
        self.loss.update(losses)
        right = answers.argmax(-1) == wanted
        self.accuracy.update(right.float())
        if batch.slice is not None:
            self.slice_loss.update(losses[batch.slice[asked]])
        of_row = []
        if batch.depth is not None:
            exact = (~asked).masked_scatter(asked, right).all(1).float()
            self.exact.update(exact)
            for part, metric in enumerate(self.exact_at):
                metric.update(exact[(batch.depth * DEPTHS).long().clamp(max=DEPTHS - 1) == part])
            of_row = [exact, batch.depth.to(exact.device)]
        if of_row or asked.all():
            loss = torch.zeros_like(asked, dtype=losses.dtype).masked_scatter(asked, losses).sum(1) / asked.sum(1)
            numbers = torch.arange(first, first + len(loss), device=loss.device)
            self.rows.update(torch.stack([numbers, loss, *of_row], 1))

    def compute(self) -> dict[str, float]:
        """Everything measured so far by all processes together; recall slice and exact match only where there are."""
        loss, accuracy = self.loss.compute(), self.accuracy.compute()
        out = {"loss": loss.item(), "perplexity": loss.exp().item(), "accuracy": accuracy.item()}
        if self.slice_loss.update_called:  # in every process, also where no token of the slice was met
            slice_loss = self.slice_loss.compute().item()
            if not math.isnan(slice_loss):  # the mean of no token at all
                out["recall_slice_loss"] = slice_loss
        if self.exact.update_called:
            out["exact_match"] = self.exact.compute().item()
            at = {f"exact_match_depth_{i}": metric.compute().item() for i, metric in enumerate(self.exact_at, 1)}
            out |= {name: value for name, value in at.items() if not math.isnan(value)}
        return out

    def samples(self) -> dict[str, list[float]]:
        """What was measured of each row of a text, and of each that has an answer of its own, by all processes
        together, in the order of the rows: mean loss of its asked tokens [nats]; where it has such an answer exact
        match (0 or 1) and depth of the answer (0 to 1)."""
        if not self.rows.update_called:
            return {}
        names = ("number", "loss", "exact_match", "depth")
        columns = zip(*sorted(self.rows.compute().tolist()), strict=True)
        told = {name: [round(value, DIGITS) for value in column] for name, column in zip(names, columns, strict=False)}
        return {name: values for name, values in told.items() if name != "number"}

    def reset(self) -> None:
        for metric in (self.loss, self.accuracy, self.slice_loss, self.rows, self.exact, *self.exact_at):
            metric.reset()


def evaluate(devices: Devices, dtype: str, data: DataModule, model: Backbone, sparse: bool) -> dict[str, float]:
    """Loss, perplexity and accuracy on the fixed evaluation batches."""
    return evaluated(make_trainer(devices, dtype), data, model, sparse).values


def evaluated(trainer: pl.Trainer, data: DataModule, model: Backbone, sparse: bool) -> Evaluation:
    """The same, and what was measured of each row."""
    module = Evaluation(model, data, sparse)
    trainer.validate(module, verbose=False)
    return module
