"""What one command asks for, typed: made from a configuration at the door, and all that anything below it reads."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from dsa import config, targets
from dsa.artifacts.names import GROUPS
from dsa.checks import above_zero, at_least, flag, folder_name, null_or_text, one_of, positive, rate, text, texts
from dsa.config import choice, resolved
from dsa.selectors import Dense

LONGEST = 40  # characters of a text's name, which is part of a folder's


@dataclass(frozen=True)
class Part:
    """One option of a config group.

    Args:
        slot: the group.
        option: its name, with `~` behind it if a value inside was changed; of a text of the user's own that text's.
        node: the class it names (`_target_`) and that class's arguments, as plain data.
        admitted: packages of the user's own whose classes it may name.
    """

    slot: str
    option: str
    node: dict[str, Any]
    admitted: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return str(self.node.get("_target_"))

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The class that it names, and those inside its settings."""
        return tuple(str(target) for _, target in targets.targets(self.node, self.slot))

    @cached_property
    def cls(self) -> Any:
        """The class that it names.

        Raises:
            TargetRefused: the slot may not name it.
        """
        return targets.slot_class(self.node, self.slot, self.admitted)

    def check(self) -> None:
        """Refuse settings that its class cannot take, without making it.

        Raises:
            ValueError: see `targets.maker`.
        """
        targets.maker(self.node, self.slot, self.admitted)

    def make(self, **arguments: Any) -> Any:
        """The object that it describes; an optimiser still wants its parameters.

        Args:
            arguments: what the class takes besides its settings.

        Raises:
            TargetRefused: the slot, or one inside, may not name what it names.
        """
        return targets.maker(self.node, self.slot, self.admitted)(**arguments)


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


@dataclass(frozen=True)
class Devices:
    """Where training runs; see conf/trainer."""

    accelerator: str
    devices: Any
    strategy: str
    num_nodes: int
    accumulate: int


@dataclass(frozen=True)
class Callbacks:
    """What happens beside the steps; see conf/callbacks. Numbers are optimiser steps, 0 = never."""

    progress_bar: bool
    val_every: int
    checkpoint_every: int
    maps_every: int


@dataclass(frozen=True)
class Spec:
    """One run: a composition on one base, at one length and seed.

    Args:
        dtype: of the backbone, fp32 or bf16.
        in_training: the precision's format takes part in training; else it is applied after it.
        content: the whole configuration as plain data, for config.yaml and dashboards.
    """

    model: Part
    indexer: Part
    pattern: Part
    selector: Part
    precision: Part
    data: Part
    objective: Part
    optimizer: Part
    logger: Part
    recipe: Recipe
    trainer: Devices
    callbacks: Callbacks
    seq_len: int
    seed: int
    indexer_seed: int
    dtype: str
    ops: str
    in_training: bool
    output_dir: str
    study: str
    resume: bool
    rerun: bool
    stale: str
    dense_control: bool
    allow_targets: tuple[str, ...]
    options: dict[str, str] = field(repr=False)  # the option of every config group
    content: dict[str, Any] = field(repr=False)

    @property
    def outputs(self) -> Path:
        return Path(self.output_dir)

    @property
    def sparse(self) -> bool:
        """Whether keys are selected at all: not where the recipe is dense training alone."""
        return self.recipe.warmup_steps > 0 or self.recipe.sparse_steps > 0

    @property
    def uses_indexer(self) -> bool:
        """Whether keys are ranked by an indexer: not in dense training, and not under a control."""
        return self.sparse and bool(self.selector.cls.uses_indexer)

    @property
    def dense(self) -> bool:
        """Whether every query attends to every earlier key."""
        if not self.sparse:
            return True
        if not issubclass(self.selector.cls, Dense):
            return False
        time = torch.arange(self.seq_len)
        return bool((self.pattern.make().visible(time) == time + 1).all())

    @property
    def condition(self) -> dict[str, str]:
        """The option of each of the four groups; none where a run uses none."""
        if not self.sparse:
            return {"indexer": "none", "pattern": "causal", "selector": "dense", "precision": "none"}
        names = {group: getattr(self, group).option for group in GROUPS}
        return names if self.uses_indexer else names | {"indexer": "none", "precision": "none"}


def compose(overrides: list[str] | None = None) -> Spec:
    """What `python train.py <overrides>` would run.

    Raises:
        hydra.errors.HydraException: an option or key does not exist; the message lists what does.
        ValueError: a setting is impossible.
    """
    return spec_of(config.compose(overrides))


def spec_of(cfg: DictConfig) -> Spec:
    """The Spec of a composed configuration.

    Raises:
        ValueError: a setting is impossible; the sentence names it, what it got and what is allowed.
    """
    for group in (part.name for part in fields(Spec) if part.type is Part):
        option_of(cfg.get(group), group)  # now: what others refer to must be there to be resolved
    return spec_from(resolved(cfg))


def spec_from(plain: dict[str, Any]) -> Spec:
    """The Spec of a configuration that is plain data already: what `Spec.content` holds.

    Raises:
        ValueError: a setting is impossible; the sentence names it, what it got and what is allowed.
    """

    try:
        return _spec_from(plain)
    except KeyError as error:
        raise ValueError(
            f"{error.args[0]}: the configuration lacks this setting; leave it as it is shipped."
        ) from error


def _spec_from(plain: dict[str, Any]) -> Spec:
    admitted = texts(plain["allow_targets"], "allow_targets")

    def part(group: str, drop: tuple[str, ...] = ()) -> Part:
        node = option_of(plain[group], group)
        kept = {key: value for key, value in node.items() if key not in drop}
        return Part(group, choice(plain, group), kept, admitted)

    data = part("data")
    if "data" in plain["overridden"]:
        data = replace(data, option=corpus_name(data) or data.option)
    at_least(plain["seq_len"], 1, "seq_len", "a row needs at least one token")
    seed = at_least(plain["seed"], 0, "seed")
    trainer, callbacks = nested(plain, "trainer"), nested(plain, "callbacks")
    recipe = recipe_of(nested(plain, "recipe"), plain["steps"])
    null_or_text(plain["cache_dir"], "cache_dir")
    if one_of(plain["judge"], ("val", "swap"), "judge") == "swap":
        recipe = untouched(recipe)
    return Spec(
        model=part("model"),
        indexer=part("indexer"),
        pattern=part("pattern"),
        selector=part("selector"),
        precision=part("precision", drop=("in_training",)),
        data=data,
        objective=part("objective"),
        optimizer=part("optimizer"),
        logger=part("logger"),
        recipe=recipe,
        trainer=Devices(
            text(trainer["accelerator"], "trainer.accelerator"),
            devices_of(trainer["devices"]),
            text(trainer["strategy"], "trainer.strategy"),
            positive(trainer["num_nodes"], "trainer.num_nodes"),
            positive(trainer["accumulate"], "trainer.accumulate"),
        ),
        callbacks=Callbacks(
            flag(callbacks["progress_bar"], "callbacks.progress_bar"),
            positive(callbacks["val_every"], "callbacks.val_every"),
            positive(callbacks["checkpoint_every"], "callbacks.checkpoint_every"),
            at_least(callbacks["maps_every"], 0, "callbacks.maps_every"),
        ),
        seq_len=plain["seq_len"],
        seed=seed,
        indexer_seed=at_least(plain["indexer_seed"], 0, "indexer_seed"),
        dtype=compute_dtype(plain["dtype"], trainer["accelerator"]),
        ops=text(plain["ops"], "ops"),
        in_training=flag(plain["precision"].get("in_training", False), "precision.in_training"),
        output_dir=text(plain["output_dir"], "output_dir"),
        study=folder_name(plain["study"], "name"),
        resume=flag(plain["resume"], "resume"),
        rerun=flag(plain["rerun"], "rerun"),
        stale=one_of(plain["stale"], ("rerun", "keep"), "stale"),
        dense_control=flag(plain["dense_control"], "dense_control"),
        allow_targets=admitted,
        options={group: choice(plain, group) for group in plain["choices"]} | {"data": data.option},
        content=plain,
    )


def corpus_name(data: Part) -> str | None:
    """What tells a text of the user's own from others in names and tables; None if nothing does.

    It decides nothing but names: what shapes numbers is the fingerprint of the data.
    """
    source, names = data.node.get("source"), []
    for slot in ("corpus", "tokenizer"):
        node = source.get(slot) if isinstance(source, dict) else None
        if isinstance(node, dict):
            try:
                names.append(targets.slot_class(node, f"data.source.{slot}", data.admitted).called(node))
            except targets.TargetRefused:  # told when the data are made
                return None
    return "-".join(filter(None, names))[:LONGEST] if names and names[0] else None


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


def option_of(node: Any, group: str) -> Any:
    """What an option holds."""
    if not isinstance(node, dict | DictConfig):
        raise ValueError(f"{group} = {node}: give the name of an option of conf/{group}.")
    return node


def nested(plain: dict[str, Any], key: str, above: str = "") -> dict[str, Any]:
    """Settings that stand together under one key."""
    node = plain[key]
    if not isinstance(node, dict):
        raise ValueError(f"{above}{key} = {node}: it holds settings of its own; give {above}{key}.<setting>.")
    return node


def devices_of(value: Any) -> Any:
    """How many devices, or which.

    Raises:
        ValueError: neither.
    """
    numbers = value if isinstance(value, list) else [value]
    least = 0 if isinstance(value, list) else 1
    whole = [isinstance(one, int) and not isinstance(one, bool) and one >= least for one in numbers]
    if value in ("auto", -1) or (whole and all(whole)):
        return value
    raise ValueError(
        f"trainer.devices = {value}: give a whole number from 1, -1 or auto for all, or a list of devices."
    )


def untouched(recipe: Recipe) -> Recipe:
    """The recipe without joint training: what it makes is judged with the backbone untouched.

    Raises:
        ValueError: without a dense stage and a warm-up there is nothing to judge.
    """
    for stage, steps in (("dense", recipe.dense_steps), ("warmup", recipe.warmup_steps)):
        if not steps:
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


def compute_dtype(dtype: Any, accelerator: str) -> str:
    """fp32 or bf16: as asked, or bf16 where the processor or accelerator is fast at it.

    Raises:
        ValueError: dtype is none of auto, fp32, bf16.
    """
    one_of(dtype, ("auto", "fp32", "bf16"), "dtype")
    if dtype != "auto":
        return str(dtype)
    if torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if fast else "fp32"
