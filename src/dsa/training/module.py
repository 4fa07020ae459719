"""One stage of a run as a LightningModule."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import Perplexity

from dsa.config import digest
from dsa.data import IGNORE, Batch, DataModule
from dsa.model import Pass, SparseTransformer
from dsa.training.log import RunLog
from dsa.training.measure import Contention
from dsa.training.objective import IndexerObjective, language_model_loss
from dsa.training.stages import Stage


class Evaluation(pl.LightningModule):
    """Measures a model on the fixed evaluation batches.

    Args:
        sparse: attention runs on the selection.
    """

    def __init__(self, model: SparseTransformer, data: DataModule, sparse: bool) -> None:
        super().__init__()
        self.model, self.data, self.sparse = model, data, sparse
        self.metrics = EvalMetrics(model.vocab_size)
        self.values: dict[str, float] = {}

    def val_dataloader(self) -> Iterable[Batch]:
        return self.data.eval_loader(self.global_rank, self.trainer.world_size)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, _ = self.model.run(batch.tokens, Pass(sparse=self.sparse))
        self.metrics.update(logits, batch)

    def on_validation_epoch_end(self) -> None:
        self.values = self.metrics.compute()
        self.metrics.reset()


class StageModule(Evaluation):
    """Trains the model through one stage: one optimiser with a group for the backbone and one for the indexers.

    Everything random is a function of (seed, stage, step), so a resumed stage ends in the same weights.

    Args:
        model: trained in place.
        optimizer: called with parameter groups.
        lr_warmup, lr_final, clip: as in the recipe.
        accumulate: micro-batches per optimiser step.
    """

    def __init__(
        self,
        model: SparseTransformer,
        stage: Stage,
        data: DataModule,
        objective: IndexerObjective,
        optimizer: Callable[..., Optimizer],
        log: RunLog,
        lr_warmup: float,
        lr_final: float,
        clip: float,
        accumulate: int,
    ) -> None:
        super().__init__(model, data, sparse=stage.sparse or stage.train_indexers)
        self.stage = stage
        self.objective, self.make_optimizer, self.run_log = objective, optimizer, log
        self.lr_warmup, self.lr_final, self.clip, self.accumulate = lr_warmup, lr_final, clip, accumulate
        for parameters, learn in (
            (model.backbone_parameters(), stage.train_backbone),
            (model.indexer_parameters(), stage.train_indexers),
        ):
            for parameter in parameters:
                parameter.requires_grad_(learn)
        self.row: dict[str, float] = {}
        self.started = 0.0
        self.contention = Contention()

    def train_dataloader(self) -> Iterable[Batch]:
        return self.data.train_loader(
            self.stage.name, self.global_step, self.global_rank, self.trainer.world_size, self.accumulate
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx % self.accumulate == 0:
            self.started = time.perf_counter()
        torch.manual_seed(int(digest([self.data.seed, self.stage.name, batch_idx], 15), 16))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        stage = self.stage
        how = Pass(
            sparse=stage.sparse,
            teach=stage.train_indexers,
            progress=self.global_step / max(stage.steps - 1, 1) if stage.sparse else 0.0,
            step=self.global_step + 1,
        )
        logits, indexer_loss = self.model.run(batch.tokens, how)
        loss = torch.zeros((), device=self.device)
        if stage.train_backbone:
            lm_loss = language_model_loss(logits, batch.targets)
            self.collect("loss", lm_loss)
            loss = loss + lm_loss
        if stage.train_indexers:
            self.collect("indexer_loss", indexer_loss)
            loss = loss + self.objective.weight * indexer_loss
        self.check_finite(loss, "loss")
        return loss

    def check_finite(self, value: Tensor, name: str) -> None:
        """Stop a run that diverged, in all its processes at once.

        Raises:
            FloatingPointError: the value is not a finite number.
        """
        bad = self.total((~value.detach().isfinite()).double())
        if bad > 0:
            stage = self.stage
            rates = [("lr", stage.lr)] * stage.train_backbone + [
                ("indexer_lr", stage.indexer_lr)
            ] * stage.train_indexers
            smaller = " or ".join(f"recipe.{stage.name}.{rate} (got {got})" for rate, got in rates)
            raise FloatingPointError(
                f"{name} = {value.item()} at step {self.global_step + 1} of stage {stage.name}: training diverged. "
                f"Give a smaller {smaller}."
            )

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes of a distributed run."""
        if self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op="sum")

    def collect(self, name: str, value: Tensor) -> None:
        """Add a micro-batch's part to this step's row of the log."""
        self.row[name] = self.row.get(name, 0.0) + value.item() / self.accumulate

    def end_step(self, batch_idx: int) -> None:
        """After each optimiser step: calibrate the selectors and write the step's row; before any checkpoint."""
        if (batch_idx + 1) % self.accumulate:
            return
        seconds = time.perf_counter() - self.started
        for attention in self.model.attentions():
            attention.selector.calibrate(self.total)
        tokens = self.data.batch_size * self.data.seq_len
        names = list(self.row)
        mean = self.total(torch.tensor([self.row[name] for name in names])) / self.trainer.world_size
        row = {f"train/{name}": value for name, value in zip(names, mean.tolist(), strict=True)}
        self.row = {}
        row |= {
            "speed/step_ms": seconds * 1e3,
            "speed/tokens_per_s": tokens / seconds,
            "speed/others": self.contention.others(),
        }
        self.run_log.add(self.stage, self.global_step, "train", row)
        loss = row.get("train/loss", row.get("train/indexer_loss", 0.0))
        self.log_dict({"loss": loss, "tokens/s": tokens / seconds}, prog_bar=True, logger=False)

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip backbone and indexers apart: a shared norm would let one scale the other."""
        for group in optimizer.param_groups:
            norm = nn.utils.clip_grad_norm_(group["params"], self.clip)
            self.check_finite(norm, f"gradient norm of the {group['name']}")
            self.row[f"grad_norm_{group['name']}"] = norm.item()
            self.row[f"lr_{group['name']}"] = group["lr"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        stage, groups = self.stage, []
        if stage.train_backbone:
            groups.append({"params": self.model.backbone_parameters(), "lr": stage.lr, "name": "backbone"})
        if stage.train_indexers:
            groups.append({"params": self.model.indexer_parameters(), "lr": stage.indexer_lr, "name": "indexers"})
        optimizer = self.make_optimizer(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_share(self, step: int) -> float:
        """Share of the learning rate at a step: a linear rise, then a cosine down to `lr_final`."""
        rise = max(1.0, self.lr_warmup * self.stage.steps)
        if step < rise:
            return (step + 1) / rise if rise > 1 else 1.0
        done = min(1.0, (step - rise) / max(1.0, self.stage.steps - rise))
        return self.lr_final + (1 - self.lr_final) * (1 + math.cos(math.pi * done)) / 2

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log_evaluation(self.global_step, self.values)

    def log_evaluation(self, step: int, values: dict[str, float]) -> None:
        """One row of the log for an evaluation at a step of this stage."""
        self.run_log.add(self.stage, step, "val", {f"val/{name}": value for name, value in values.items()})


class EvalMetrics(nn.Module):
    """Loss, perplexity and accuracy over the positions that ask for something, and the loss on the recall slice.

    Raises:
        FloatingPointError: a loss is not a number; torchmetrics would leave it out.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.loss, self.slice_loss = MeanMetric(), MeanMetric()
        self.perplexity = Perplexity(ignore_index=IGNORE)
        self.accuracy = MulticlassAccuracy(vocab_size, average="micro", ignore_index=IGNORE)

    @torch.no_grad()
    def update(self, logits: Tensor, batch: Batch) -> None:
        logits = logits.float()
        asked = batch.targets != IGNORE
        losses = nn.functional.cross_entropy(logits.mT, batch.targets, ignore_index=IGNORE, reduction="none")
        if not losses.isfinite().all():
            raise FloatingPointError(
                "validation loss is not a number: the weights diverged. Give smaller rates (recipe)."
            )
        self.loss.update(losses[asked])
        self.perplexity.update(logits, batch.targets)
        self.accuracy.update(logits.flatten(0, 1), batch.targets.flatten())
        if batch.slice is not None:
            self.slice_loss.update(losses[batch.slice])

    def compute(self) -> dict[str, float]:
        """Everything measured so far by all processes together; the recall slice only if there was one."""
        out = {
            "loss": self.loss.compute().item(),
            "perplexity": self.perplexity.compute().item(),
            "accuracy": self.accuracy.compute().item(),
        }
        if self.slice_loss.update_called:  # in every process, also where no token of the slice was met
            slice_loss = self.slice_loss.compute().item()
            if not math.isnan(slice_loss):  # the mean of no token at all
                out["recall_slice_loss"] = slice_loss
        return out

    def reset(self) -> None:
        for metric in (self.loss, self.slice_loss, self.perplexity, self.accuracy):
            metric.reset()
