"""One stage of training as a LightningModule; what is learned in it is a subclass's business."""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from dsa import ops
from dsa.artifacts.digest import digest
from dsa.backbones import Backbone
from dsa.data import Batch, DataModule
from dsa.judging.evaluation import Evaluation
from dsa.judging.speed import Contention
from dsa.spec import Recipe
from dsa.training.balance import Balanced
from dsa.training.log import RunLog
from dsa.training.shard import gathered, shard
from dsa.training.stages import Group, Stage


class Training(Evaluation):
    """Goes through one stage: one optimiser, each group of parameters at its own rate and clipped alone.

    Everything random is a function of (seed, stage, step), so a resumed stage ends in the same weights.

    Attributes:
        backbone_learns: its layers may then be compiled, and lie in parts with several processes.

    Args:
        model: trained in place.
        sparse: attention runs on the selection.
        groups: what learns; everything else is frozen.
        optimizer: called with parameter groups.
        recipe: its schedule and clipping.
        accumulate: micro-batches per optimiser step.
    """

    backbone_learns: ClassVar[bool] = True

    def __init__(
        self,
        model: Backbone,
        data: DataModule,
        sparse: bool,
        stage: Stage,
        groups: list[Group],
        optimizer: Callable[..., Optimizer],
        recipe: Recipe,
        accumulate: int,
        log: RunLog,
    ) -> None:
        super().__init__(model, data, sparse)
        self.stage, self.learning, self.make_optimizer, self.recipe = stage, groups, optimizer, recipe
        self.accumulate, self.run_log = accumulate, log
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        for group in groups:
            for parameter in group.parameters:
                parameter.requires_grad_(True)
        self.balances = nn.ModuleDict()  # of losses that teach the same parameters, by the loss's name
        self.sums: dict[str, Tensor] = {}  # of the step's losses, on the device
        self.row: dict[str, float] = {}
        self.started = 0.0
        self.contention = Contention()

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """What is minimised, by its name in the log."""

    def configure_model(self) -> None:
        """Before anything is trained: where the strategy wants parts, the model becomes this process's."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy):
            self.learning = shard(self.model, self.learning, strategy.root_device, self.trainer.world_size)

    def train_dataloader(self) -> Iterable[Batch]:
        return self.data.train_loader(
            self.stage.name, self.global_step, self.global_rank, self.trainer.world_size, self.accumulate
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx % self.accumulate == 0:
            self.started = time.perf_counter()
        draw = batch_idx * self.trainer.world_size + self.global_rank  # processes have other rows, and draw apart
        seed_draws(int(digest([self.data.seed, self.stage.name, draw], 15), 16), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        with self.model.memory.saving():
            losses = self.losses(batch)
        for name, loss in losses.items():
            part = loss.detach() / self.accumulate
            self.sums[name] = self.sums[name] + part if name in self.sums else part
        return torch.stack([self.weight(name) * loss for name, loss in losses.items()]).sum()

    def weight(self, name: str) -> float:
        """How much a loss counts in the sum: it scales the gradient of those that learn from it."""
        return 1.0

    def check_finite(self, value: float, name: str, groups: list[Group]) -> None:
        """Stop a run that diverged, in all its processes at once.

        Raises:
            FloatingPointError: the value is not a finite number.
        """
        if self.anywhere(not math.isfinite(value)):
            raise FloatingPointError(self.diverged(value, name, groups))

    def diverged(self, value: float, name: str, groups: list[Group]) -> str:
        """What to tell of a value that is not a number."""
        smaller = " or ".join(f"{group.setting} (got {group.lr})" for group in groups)
        return (
            f"{name} = {value} at step {self.global_step + 1} of stage {self.stage.name}: training diverged. "
            f"Give a smaller {smaller}."
        )

    def anywhere(self, here: bool) -> bool:
        """Whether something holds in any process of a distributed run."""
        return bool(self.total(torch.tensor(float(here), dtype=torch.float64)) > 0)

    def total(self, value: Tensor) -> Tensor:
        """Sum over the processes of a distributed run."""
        if self.trainer.world_size == 1:
            return value
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op="sum")

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip each group alone: a shared norm would let one scale the other."""
        norms = self.clipped()
        for name in self.sums:
            self.check_finite(self.row[name], name, self.learning)
        for group, norm in zip(self.learning, norms, strict=True):
            self.check_finite(norm, f"gradient norm of the {group.name}", [group])
        self.note_rates(optimizer)

    def clipped(self) -> list[float]:
        """Clip each group's gradients, and note its norm before and the step's losses: they wait for the device once.

        Returns: the norms.

        Raises:
            FloatingPointError, IndexError: a kernel found a fault in this step.
        """
        norms = [gathered(nn.utils.clip_grad_norm_(group.parameters, self.recipe.clip)) for group in self.learning]
        found: list[float] = torch.stack([*self.sums.values(), *norms]).tolist()
        ops.settle()
        names = [*self.sums, *(f"grad_norm_{group.name}" for group in self.learning)]
        self.row |= dict(zip(names, found, strict=True))
        return found[len(self.sums) :]

    def note_rates(self, optimizer: Optimizer) -> None:
        """Learning rates of this step, before the schedule moves them on."""
        for group, settings in zip(self.learning, optimizer.param_groups, strict=True):
            self.row[f"lr_{group.name}"] = settings["lr"]

    def end_step(self, batch_idx: int) -> None:
        """After each optimiser step, before any checkpoint: write the step's row."""
        if (batch_idx + 1) % self.accumulate:
            return
        for name, balance in self.balances.items():
            assert isinstance(balance, Balanced)
            counted = balance.learn(self.total, self.accumulate * self.trainer.world_size)
            self.row |= {f"balance_{site:02d}_{name}": weight for site, weight in counted.items()}
        seconds = time.perf_counter() - self.started
        tokens = self.data.batch_size * self.data.seq_len
        names, shown = list(self.row), next(iter(self.sums))
        mean = self.total(torch.tensor([self.row[name] for name in names])) / self.trainer.world_size
        row = {f"train/{name}": value for name, value in zip(names, mean.tolist(), strict=True)}
        self.row, self.sums = {}, {}
        row |= {
            "speed/step_ms": seconds * 1e3,
            "speed/tokens_per_s": tokens / seconds,
            "speed/others": self.contention.others(),
        }
        self.record(row)
        self.log_dict({"loss": row[f"train/{shown}"], "tokens/s": tokens / seconds}, prog_bar=True, logger=False)

    def record(self, row: dict[str, float]) -> None:
        """Write a training step's row to the log."""
        self.run_log.add(self.stage, self.global_step, "train", row)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["threads"] = torch.get_num_threads()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [{"params": group.parameters, "lr": group.lr, "name": group.name} for group in self.learning]
        optimizer = self.make_optimizer(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_share(self, step: int) -> float:
        """Share of the learning rate at a step: a linear rise, then a cosine down to `lr_final`."""
        recipe, steps = self.recipe, self.stage.steps
        rise = max(1.0, recipe.lr_warmup * steps)
        if step < rise:
            return (step + 1) / rise if rise > 1 else 1.0
        done = min(1.0, (step - rise) / max(1.0, steps - rise))
        return recipe.lr_final + (1 - recipe.lr_final) * (1 + math.cos(math.pi * done)) / 2

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log_evaluation(self.global_step, self.values)

    def log_evaluation(self, step: int, values: dict[str, float]) -> None:
        """One row of the log for an evaluation at a step of this stage."""
        self.run_log.add(self.stage, step, "val", {f"val/{name}": value for name, value in values.items()})


def seed_draws(number: int, device: torch.device) -> None:
    """Begin what is drawn on the processor and on a device anew: as torch.manual_seed, which also writes down the whole
    stack for devices that are not there, and then takes longer than many an op."""
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(number)
