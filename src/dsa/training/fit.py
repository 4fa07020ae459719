"""Lightning at work: one fit a stage, continued where an interrupted one left off."""

import logging
from pathlib import Path

import pytorch_lightning as pl
import torch

from dsa.artifacts.store import LAST
from dsa.judging import threads
from dsa.judging.evaluation import evaluate, make_trainer
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.callbacks import CompiledLayers, EndOfStep, LastCheckpoint, SelectionMaps, StageBar
from dsa.training.module import Training
from dsa.training.shard import sharding

logger = logging.getLogger(__name__)


def fit(spec: Spec, module: Training, folder: Path, maps: Path | None = None, validate: bool = True) -> None:
    """Train one stage in place, from its last checkpoint if it was interrupted.

    Args:
        folder: where its checkpoint lies.
        maps: where pictures of the selection go; None draws none.
        validate: evaluate every so often.
    """
    callbacks: list[pl.Callback] = [EndOfStep(), LastCheckpoint(folder / LAST, spec.callbacks.checkpoint_every)]
    if spec.callbacks.progress_bar:
        callbacks.append(StageBar(leave=True))
    if spec.callbacks.maps_every and maps is not None:
        callbacks.append(SelectionMaps(maps, spec.callbacks.maps_every))
    if spec.compile and module.backbone_learns:
        callbacks.append(CompiledLayers())
    every = spec.callbacks.val_every if validate else module.stage.steps + 1  # beyond the end: never
    parts = {"strategy": sharding()} if spec.trainer.shard and module.backbone_learns else {}
    trainer = make_trainer(
        spec.trainer,
        spec.dtype,
        max_steps=module.stage.steps,
        max_epochs=-1,
        accumulate_grad_batches=module.accumulate,
        val_check_interval=every * module.accumulate,
        check_val_every_n_epoch=None,
        enable_progress_bar=spec.callbacks.progress_bar,
        callbacks=callbacks,
        default_root_dir=folder,
        **parts,
    )
    last = folder / LAST
    if not last.exists():
        module.run_log.cut(module.stage.offset)
        trainer.fit(module)
        return
    saved = torch.load(last, map_location="cpu", weights_only=True)
    step = saved["global_step"]
    if first_process():
        logger.info("%s: goes on from step %d of %d", module.stage.name, step, module.stage.steps)
    threads.use(saved["threads"], f"the checkpoint of stage {module.stage.name} was made")
    module.run_log.cut(module.stage.offset + step)
    if validate and step % spec.callbacks.val_every == 0:  # it may have been killed between checkpoint and evaluation
        module.load_state_dict(saved["state_dict"])
        values = evaluate(spec.trainer, spec.dtype, module.data, module.model, module.sparse)
        module.log_evaluation(step, values)
    trainer.fit(module, ckpt_path=last, weights_only=True)
