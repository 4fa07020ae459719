"""How long each stage trains and at which rates, typed; see conf/recipe."""

from dataclasses import dataclass, replace
from typing import Any

from dsa.checks import above_zero, at_least, rate


@dataclass(frozen=True)
class Recipe:
    """How long each stage trains and at which rates; a stage of 0 steps is left out.

    Args:
        dense_lr, sparse_lr: of the backbone.
        dense_until: accuracy at which dense training ends before its steps are used up; None for all of them.
        warmup_lr, sparse_indexer_lr: of the indexers.
        lr_warmup, lr_final: shares, see conf/recipe.
        clip: largest gradient norm of each group of parameters.
    """

    dense_steps: int
    dense_lr: float
    warmup_steps: int
    warmup_lr: float
    sparse_steps: int
    sparse_lr: float
    sparse_indexer_lr: float
    lr_warmup: float
    lr_final: float
    clip: float
    dense_until: float | None = None


def recipe_of(recipe: dict[str, Any], total: Any) -> Recipe:
    """The recipe, with `total` optimiser steps shared out in proportion to its own.

    Raises:
        ValueError: a number would train silently wrong, or no stage has steps.
    """
    dense, warmup, sparse = (nested(recipe, name, "recipe.") for name in ("dense", "warmup", "sparse"))
    steps = scaled({"dense": dense["steps"], "warmup": warmup["steps"], "sparse": sparse["steps"]}, total)
    if not any(steps.values()):
        raise ValueError("recipe: every stage has 0 steps; give recipe.sparse.steps or recipe.dense.steps from 1.")
    for name in ("lr_warmup", "lr_final"):
        if isinstance(recipe[name], bool) or not isinstance(recipe[name], int | float) or not 0 <= recipe[name] <= 1:
            raise ValueError(f"recipe.{name} = {recipe[name]}: give a share from 0 to 1.")
    clip = recipe["clip"]
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        raise ValueError(f"recipe.clip = {recipe['clip']}: the largest gradient norm must be above 0.")
    return Recipe(
        dense_steps=steps["dense"],
        dense_lr=rate(dense["lr"], "recipe.dense.lr"),
        warmup_steps=steps["warmup"],
        warmup_lr=rate(warmup["indexer_lr"], "recipe.warmup.indexer_lr"),
        sparse_steps=steps["sparse"],
        sparse_lr=rate(sparse["lr"], "recipe.sparse.lr"),
        sparse_indexer_lr=rate(sparse["indexer_lr"], "recipe.sparse.indexer_lr"),
        lr_warmup=float(recipe["lr_warmup"]),
        lr_final=float(recipe["lr_final"]),
        clip=float(recipe["clip"]),
        dense_until=None if dense["until"] is None else above_zero(dense["until"], "recipe.dense.until", most=1.0),
    )


def nested(plain: dict[str, Any], key: str, above: str = "") -> dict[str, Any]:
    """Settings that stand together under one key."""
    node = plain[key]
    if not isinstance(node, dict):
        raise ValueError(f"{above}{key} = {node}: it holds settings of its own; give {above}{key}.<setting>.")
    return node


def untouched(recipe: Recipe, given: bool) -> Recipe:
    """The recipe without joint training: what it makes is judged with the backbone untouched.

    Args:
        given: the base is a pretrained model, as it is.

    Raises:
        ValueError: without a dense stage and a warm-up there is nothing to judge.
    """
    for stage, steps in (("dense", recipe.dense_steps), ("warmup", recipe.warmup_steps)):
        if not steps and not (given and stage == "dense"):
            raise ValueError(
                f"judge = swap: recipe.{stage}.steps = 0; what is judged with the backbone untouched needs a base and "
                "a warm-up. Give another recipe, or judge=val."
            )
    return replace(recipe, sparse_steps=0)


def scaled(steps: dict[str, int], total: Any) -> dict[str, int]:
    """Steps of each stage, scaled so that they add up to about `total`; a stage that has steps keeps at least one."""
    for name, count in steps.items():
        at_least(count, 0, f"recipe.{name}.steps")
    if total is None:
        return steps
    at_least(total, sum(count > 0 for count in steps.values()), "steps", "one for each stage of the recipe")
    whole = sum(steps.values())
    return {name: max(1, round(count * total / whole)) if count else 0 for name, count in steps.items()}
