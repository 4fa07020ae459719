"""One step of joint training by itself, for whoever measures steps; it learns nothing."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dsa.backbones import Backbone
from dsa.data import Batch, DataModule
from dsa.judging.evaluation import make_trainer
from dsa.spec import Spec
from dsa.training.joint import JointTraining, groups_of
from dsa.training.log import RunLog
from dsa.training.stages import Stage


def random_rows(rows: int, length: int, vocab_size: int, device: torch.device) -> Batch:
    """A batch of tokens drawn alike, the same ones each time."""
    tokens = torch.randint(vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(0)).to(device)
    return Batch(tokens[:, :-1], tokens[:, 1:])


class LastStep(JointTraining):
    """Joint training as it is at its end, in one process: what a selector spends at last is what counts."""

    @property
    def progress(self) -> float:
        return 1.0


def last_step(
    spec: Spec, model: Backbone, data: DataModule, batch: Batch, sparse: bool, device: torch.device
) -> Callable[[], None]:
    """A whole step at rate 0: forward, both losses, backward, clipping of each group, optimiser; forward in the number
    format of the spec, which every step enters anew, as in training.

    Args:
        model: in training mode on the device; its weights stay as they are.
        sparse: attention runs on the selection, and the indexers learn if their objective says so.
    """
    objective = spec.objective.make()
    groups = [group._replace(lr=0.0) for group in groups_of(model, spec.recipe, objective)]
    learning = groups if sparse else [group for group in groups if group.name == "backbone"]
    module = LastStep(
        objective, model, data, sparse, Stage("sparse", 1, 0), learning, spec.optimizer.make(), spec.recipe, 1,
        RunLog(None),
    ).to(device)  # fmt: skip
    module.trainer = make_trainer(replace(spec.trainer, devices=1, num_nodes=1, strategy="auto"), "fp32")
    optimizer = module.make_optimizer([{"params": group.parameters, "lr": group.lr} for group in learning])

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=spec.dtype == "bf16"):
            loss = module.training_step(batch, 0)
        loss.backward()
        module.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        module.row.clear()
        module.sums.clear()

    return step
