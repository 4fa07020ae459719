"""Lightning at work: one fit a stage, and evaluation."""

import logging
import os
import shutil
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from dsa.build import build_model, instantiate
from dsa.checks import positive
from dsa.data import DataModule
from dsa.model import SparseTransformer
from dsa.training.callbacks import AtomicCheckpoints, EndOfStep, SelectionMaps, StageBar, last_checkpoint
from dsa.training.log import RunLog
from dsa.training.module import Evaluation, StageModule
from dsa.training.plan import Plan
from dsa.training.stages import Stage
from dsa.training.world import first_process, wait_for_all

WEIGHTS = "weights.ckpt"
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", ".*does not have many workers.*")
warnings.filterwarnings("ignore", ".*exists and is not empty.*")
warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")


def make_trainer(cfg: DictConfig, dtype: str, **arguments: object) -> pl.Trainer:
    """A Trainer for one fit or one evaluation, on the devices the configuration names."""
    settings = cfg.trainer
    defaults: dict[str, object] = {
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "strategy": settings.strategy,
        "num_nodes": settings.num_nodes,
        "precision": {"fp32": "32-true", "bf16": "bf16-mixed"}[dtype],
        "plugins": [AtomicCheckpoints()],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "inference_mode": False,  # its tensors, once made, could not serve in training
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**defaults | arguments)  # type: ignore[arg-type]


def train_stage(plan: Plan, data: DataModule, model: SparseTransformer, stage: Stage, log: RunLog) -> SparseTransformer:
    """The model after a stage: trained now, from its last checkpoint if it was interrupted, or read if it is done.

    A stage's folder gets its final name in one rename, when its weights are whole.
    """
    done = plan.folder / "checkpoints" / stage.name
    if not done.exists():
        fit(plan, data, model, stage, log, done.with_suffix(".partial"))
        wait_for_all()
        if first_process():
            (done.with_suffix(".partial") / "last.ckpt").unlink(missing_ok=True)
            os.replace(done.with_suffix(".partial"), done)
        wait_for_all()
    trained = build_model(plan.cfg, data.vocab_size)
    load_weights(trained, done / WEIGHTS)
    return trained


def fit(plan: Plan, data: DataModule, model: SparseTransformer, stage: Stage, log: RunLog, folder: Path) -> None:
    """Train one stage and leave its weights in `folder`."""
    cfg, recipe = plan.cfg, plan.cfg.recipe
    accumulate = positive(cfg.trainer.accumulate, "trainer.accumulate")
    val_every = positive(cfg.callbacks.val_every, "callbacks.val_every")
    callbacks: list[pl.Callback] = [
        EndOfStep(),
        last_checkpoint(folder, positive(cfg.callbacks.checkpoint_every, "callbacks.checkpoint_every")),
    ]
    if cfg.callbacks.progress_bar:
        callbacks.append(StageBar(leave=True))
    if cfg.callbacks.maps_every:
        callbacks.append(SelectionMaps(plan.folder / "maps", cfg.callbacks.maps_every))
    trainer = make_trainer(
        cfg,
        plan.dtype,
        max_steps=stage.steps,
        max_epochs=-1,
        accumulate_grad_batches=accumulate,
        val_check_interval=val_every * accumulate,
        check_val_every_n_epoch=None,
        enable_checkpointing=True,
        enable_progress_bar=cfg.callbacks.progress_bar,
        callbacks=callbacks,
        default_root_dir=folder,
    )
    module = StageModule(
        model,
        stage,
        data,
        instantiate(cfg, "objective"),
        instantiate(cfg, "optimizer"),
        log,
        recipe.lr_warmup,
        recipe.lr_final,
        recipe.clip,
        accumulate,
    )
    last = folder / "last.ckpt"
    if last.exists():
        state = torch.load(last, map_location="cpu", weights_only=True)
        log.cut(stage.offset + state["global_step"])
        if state["global_step"] % val_every == 0:  # it may have been killed between checkpoint and evaluation
            load_weights(model, last)
            module.log_evaluation(state["global_step"], evaluate(plan, data, model, module.sparse))
        trainer.fit(module, ckpt_path=last, weights_only=True)
    else:
        log.cut(stage.offset)
        trainer.fit(module)
    trainer.save_checkpoint(folder / WEIGHTS, weights_only=True)


def evaluate(plan: Plan, data: DataModule, model: SparseTransformer, sparse: bool) -> dict[str, float]:
    """Loss, perplexity and accuracy on the fixed evaluation batches."""
    module = Evaluation(model, data, sparse)
    make_trainer(plan.cfg, plan.dtype).validate(module, verbose=False)
    return module.values


def load_weights(model: SparseTransformer, path: Path) -> None:
    """Read a stage's weights into a model; indexers that the file does not know keep their initial weights.

    Raises:
        ValueError: anything else is missing, or is there and not in the model.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    wrong = [name for name in missing if ".indexer." not in name and ".selector." not in name] + list(unexpected)
    if wrong:
        raise ValueError(f"{path}: these weights do not fit the model: {', '.join(wrong[:4])}.")


def remove_stages(plan: Plan, but: str) -> None:
    """Drop the weights of earlier stages: a finished run needs the last alone."""
    for folder in (plan.folder / "checkpoints").iterdir():
        if folder.is_dir() and folder.name != but:
            shutil.rmtree(folder)
