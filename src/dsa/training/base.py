"""The base: the backbone trained with dense attention, before anything sparse."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dsa.artifacts.files import METRICS
from dsa.artifacts.store import Artifact, Store
from dsa.backbones import Backbone, Pass
from dsa.build import build_backbone
from dsa.data import Batch, DataModule
from dsa.graph import Need
from dsa.judging.checkpoints import save_weights
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.criterion import Criterion, accuracy_of
from dsa.training.dashboard import Dashboard
from dsa.training.fit import fit
from dsa.training.log import RunLog
from dsa.training.making import made
from dsa.training.module import Training
from dsa.training.objective import losses_of
from dsa.training.shard import whole
from dsa.training.stages import Group, Stage


class BaseTraining(Training):
    """Dense attention, the language-model loss, everything learns; for a number of steps, or to a criterion."""

    def __init__(self, criterion: Criterion | None, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.criterion = criterion

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.criterion is not None:
            checkpoint["criterion"] = [self.criterion.falling, self.criterion.reached]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.criterion is not None:
            self.criterion.falling, self.criterion.reached = checkpoint["criterion"]

    def on_train_start(self) -> None:
        self.stop_at_end()  # where it was interrupted after the last step

    def end_step(self, batch_idx: int) -> None:
        super().end_step(batch_idx)
        if self.criterion is not None and (batch_idx + 1) % self.accumulate == 0:
            self.criterion.look(self.global_step, self.model, self.data)
            self.stop_at_end()

    def stop_at_end(self) -> None:
        """Tell the trainer when the criterion says that training is over."""
        if self.criterion is not None and self.global_step >= self.criterion.end:
            self.trainer.should_stop = True

    def lr_share(self, step: int) -> float:
        if self.criterion is None:
            return super().lr_share(step)
        return self.criterion.lr_share(step, self.recipe.lr_warmup, self.recipe.lr_final)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": losses_of(self.model, batch, Pass(sparse=False))[0]}


def make_base(store: Store, spec: Spec, need: Need, data: DataModule, dashboard: Dashboard) -> Artifact:
    """The base that a spec names, trained now unless it is there."""

    def make(folder: Path, resumed: bool) -> dict[str, Any]:
        if spec.given:  # it lies where it lies, and its fingerprint says which it is
            return {"vocab_size": data.vocab_size, "trained": {"steps": 0}}
        model = build_backbone(spec, data.vocab_size)
        recipe = spec.recipe
        stage = Stage("dense", recipe.dense_steps, 0)
        group = Group("backbone", model.groups()["backbone"], recipe.dense_lr, "recipe.dense.lr")
        until = recipe.dense_until
        criterion = None if until is None else Criterion(until, recipe.dense_steps)
        with dashboard.started(folder, [stage.name], resumed) as listener:
            log = RunLog(folder / METRICS if first_process() else None, listener)
            module = BaseTraining(
                criterion, model, data, False, stage, [group], spec.optimizer.make(), recipe, spec.trainer.accumulate,
                log,
            )  # fmt: skip
            fit(spec, module, folder)
        weights = whole(model)
        if first_process():
            save_weights(weights, folder)
        return {"vocab_size": data.vocab_size} | trained(criterion, recipe.dense_steps, model, data)

    return made(store, need, spec, make)


def trained(criterion: Criterion | None, steps: int, model: Backbone, data: DataModule) -> dict[str, Any]:
    """How long a base was trained, and what it reached of its criterion."""
    if criterion is None:
        return {"trained": {"steps": steps}}
    return {
        "trained": {
            "steps": criterion.end,
            "until": criterion.accuracy,
            "solved_at": criterion.reached,
            "accuracy": accuracy_of(model, data),
        }
    }
