"""The stages of a run, as the recipe describes them."""

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from dsa.build import needs_indexer
from dsa.checks import at_least

IN_ORDER = ("dense", "warmup", "sparse")


@dataclass(frozen=True)
class Stage:
    """One fit: what attends how, what learns, for how long.

    Args:
        sparse: attention runs on the selection.
        train_backbone, train_indexers: which parameters learn; indexers learn from a loss of their own.
        offset: optimiser steps of the stages before.
    """

    name: str
    steps: int
    lr: float
    indexer_lr: float
    sparse: bool
    train_backbone: bool
    train_indexers: bool
    offset: int


def stages_of(cfg: DictConfig) -> list[Stage]:
    """The stages that this run goes through, with `steps` shared out in proportion to the recipe's.

    Controls have no indexer, so no warm-up; its steps are not given to the others.
    """
    recipe = cfg.recipe
    check_numbers(recipe)
    counts = scaled({name: recipe[name].steps for name in IN_ORDER}, cfg.steps)
    teach = needs_indexer(cfg)
    out: list[Stage] = []

    def add(name: str, lr: float, indexer_lr: float, sparse: bool, backbone: bool, indexers: bool) -> None:
        if counts[name]:
            offset = sum(stage.steps for stage in out)
            out.append(Stage(name, counts[name], lr, indexer_lr, sparse, backbone, indexers, offset))

    add("dense", recipe.dense.lr, 0.0, sparse=False, backbone=True, indexers=False)
    if teach:
        add("warmup", 0.0, recipe.warmup.indexer_lr, sparse=False, backbone=False, indexers=True)
    learn = teach and cfg.objective.train_when_sparse
    add("sparse", recipe.sparse.lr, recipe.sparse.indexer_lr * learn, sparse=True, backbone=True, indexers=learn)
    if not out:
        raise ValueError("recipe: every stage has 0 steps; give recipe.sparse.steps or recipe.dense.steps from 1.")
    return out


def check_numbers(recipe: DictConfig) -> None:
    """Refuse rates and bounds that would train silently wrong."""
    rates = [("dense", "lr"), ("warmup", "indexer_lr"), ("sparse", "lr"), ("sparse", "indexer_lr")]
    for stage, name in rates:
        if not number(recipe[stage][name]) >= 0:
            raise ValueError(f"recipe.{stage}.{name} = {recipe[stage][name]}: a learning rate must be 0 or more.")
    if not number(recipe.clip) > 0:
        raise ValueError(f"recipe.clip = {recipe.clip}: the largest gradient norm must be above 0.")
    for name in ("lr_warmup", "lr_final"):
        if not 0 <= number(recipe[name]) <= 1:
            raise ValueError(f"recipe.{name} = {recipe[name]}: give a share from 0 to 1.")


def number(value: Any) -> float:
    """The value, if it is a number; else NaN, which fails every comparison."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def scaled(steps: dict[str, int], total: int | None) -> dict[str, int]:
    """Steps of each stage, scaled so that they add up to about `total`; a stage that has steps keeps at least one."""
    for name, count in steps.items():
        at_least(count, 0, f"recipe.{name}.steps")
    if total is None:
        return steps
    at_least(total, sum(count > 0 for count in steps.values()), "steps", "one for each stage of the recipe")
    whole = sum(steps.values())
    return {name: max(1, round(count * total / whole)) if count else 0 for name, count in steps.items()}
