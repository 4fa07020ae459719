"""The base: the backbone trained with dense attention, before anything sparse."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dsa.artifacts.store import Artifact, Store
from dsa.backbones import Pass
from dsa.build import build_backbone
from dsa.data import Batch, DataModule
from dsa.graph import Need
from dsa.judging.checkpoints import save_weights
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.dashboard import Dashboard
from dsa.training.fit import fit
from dsa.training.log import METRICS, RunLog
from dsa.training.making import made
from dsa.training.module import Training
from dsa.training.objective import language_model_loss
from dsa.training.stages import Group, Stage


class BaseTraining(Training):
    """Dense attention, the language-model loss, everything learns."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.model.run(batch.tokens, Pass(sparse=False)).logits
        return {"loss": language_model_loss(logits, batch.targets)}


def make_base(store: Store, spec: Spec, need: Need, data: DataModule, dashboard: Dashboard) -> Artifact:
    """The base that a spec names, trained now unless it is there."""

    def make(folder: Path, resumed: bool) -> dict[str, Any]:
        model = build_backbone(spec, data.vocab_size)
        recipe = spec.recipe
        stage = Stage("dense", recipe.dense_steps, 0)
        group = Group("backbone", model.groups()["backbone"], recipe.dense_lr, "recipe.dense.lr")
        with dashboard.started(folder, [stage.name], resumed) as listener:
            log = RunLog(folder / METRICS if first_process() else None, listener)
            module = BaseTraining(
                model, data, False, stage, [group], spec.optimizer.make(), recipe, spec.trainer.accumulate, log
            )
            fit(spec, module, folder)
        if first_process():
            save_weights(model.state_dict(), folder)
        return {"vocab_size": data.vocab_size}

    return made(store, need, spec, make)
