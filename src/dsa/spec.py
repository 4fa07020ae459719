"""What one command asks for, typed: made from a configuration at the door, and all that anything below it reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dsa import cli_errors, config, targets
from dsa.artifacts.names import GROUPS
from dsa.backbones.memory import Memory, memory_of
from dsa.checks import (
    at_least,
    flag,
    folder_name,
    null_or_text,
    one_of,
    positive,
    sharing,
    text,
    texts,
)
from dsa.config import choice, resolved
from dsa.devices import Devices, compute_dtype, trainer_of
from dsa.part import Part, option_of
from dsa.recipe import Recipe, nested, recipe_of, untouched
from dsa.selectors import Dense

LONGEST = 40  # characters of the name of a text or a model, which is part of a folder's


@dataclass(frozen=True)
class Callbacks:
    """What happens beside the steps; see conf/callbacks. Numbers are optimiser steps, 0 = never."""

    progress_bar: bool
    val_every: int
    checkpoint_every: int
    maps_every: int


def callbacks_of(node: dict[str, Any]) -> Callbacks:
    """The callbacks of a configuration.

    Raises:
        ValueError: a setting is impossible.
    """
    return Callbacks(
        progress_bar=flag(node["progress_bar"], "callbacks.progress_bar"),
        val_every=positive(node["val_every"], "callbacks.val_every"),
        checkpoint_every=positive(node["checkpoint_every"], "callbacks.checkpoint_every"),
        maps_every=at_least(node["maps_every"], 0, "callbacks.maps_every"),
    )


@dataclass(frozen=True)
class Spec:
    """One run: a composition on one base, at one length and seed.

    Args:
        index_every: how many attention layers in a row share an indexer and what it chose, or the layers that lead.
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
    memory: Memory
    callbacks: Callbacks
    seq_len: int
    seed: int
    indexer_seed: int
    index_every: int | tuple[int, ...]
    dtype: str
    ops: str
    compile: bool
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
    def given(self) -> bool:
        """Whether its backbone comes with weights that somebody trained."""
        return bool(self.model.cls.given)

    @property
    def uses_indexer(self) -> bool:
        """Whether keys are ranked by an indexer: not in dense training, and not under a control."""
        return self.sparse and bool(self.selector.cls.uses_indexer)

    @property
    def trains_pattern(self) -> bool:
        """Whether the warm-up trains its pattern too, beside the indexers."""
        return self.uses_indexer and bool(self.pattern.cls.learns)

    @property
    def shared(self) -> list[str]:
        """How names say that layers share an indexer."""
        if isinstance(self.index_every, tuple):
            return [f"lead{'.'.join(map(str, self.index_every))}"]
        return [] if self.index_every == 1 else [f"every{self.index_every}"]

    @property
    def indexer_label(self) -> str:
        """What tells its indexer from the others of a cohort."""
        own = [] if self.indexer_seed == self.seed else [f"i{self.indexer_seed}"]
        pattern = [self.pattern.label] if self.trains_pattern else []
        return "-".join([self.indexer.label, *self.shared, *pattern, *own])

    @cached_property
    def dense(self) -> bool:
        """Whether every query attends to every earlier key."""
        if not self.sparse:
            return True
        if not issubclass(self.selector.cls, Dense):
            return False
        time = torch.arange(self.seq_len)
        return all(bool((one.visible(time) == time + 1).all()) for one in self.pattern.make().library)

    @property
    def condition(self) -> dict[str, str]:
        """The option of each of the four groups; none where a run uses none."""
        if not self.sparse:
            return {"indexer": "none", "pattern": "causal", "selector": "dense", "precision": "none"}
        names = {group: getattr(self, group).option for group in GROUPS}
        return names if self.uses_indexer else names | {"indexer": "none", "precision": "none"}


def compose(overrides: Sequence[str] = ()) -> Spec:
    """What `python train.py <overrides>` would run.

    Raises:
        ValueError: an option or key does not exist, or a setting is impossible; the sentence of the command line.
    """
    if isinstance(overrides, str):
        raise ValueError(f"compose: give a list of settings, as [{overrides!r}].")
    try:
        return spec_of(config.compose([*overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(cli_errors.sentence(error)) from None


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
    at_least(plain["seq_len"], 2, "seq_len", "in a row of one token there is nothing to select")
    plain = settled(plain, admitted)

    def part(group: str, drop: tuple[str, ...] = ()) -> Part:
        node = option_of(plain[group], group)
        kept = {key: value for key, value in node.items() if key not in drop}
        return Part(group, choice(plain, group), kept, admitted)

    data, model = part("data"), part("model")
    if "data" in plain["overridden"]:
        data = replace(data, option=corpus_name(data) or data.option)
    if "model" in plain["overridden"]:
        model = replace(model, option=(model.cls.named_by(model.node) or model.option)[:LONGEST])
    null_or_text(plain["cache_dir"], "cache_dir")
    trainer = trainer_of(nested(plain, "trainer"))
    return Spec(
        model=model,
        indexer=part("indexer"),
        pattern=part("pattern"),
        selector=part("selector"),
        precision=part("precision", drop=("in_training",)),
        data=data,
        objective=part("objective"),
        optimizer=part("optimizer"),
        logger=part("logger"),
        recipe=stages(plain, given=bool(model.cls.given)),
        trainer=trainer,
        memory=memory_of(nested(plain, "memory")),
        callbacks=callbacks_of(nested(plain, "callbacks")),
        seq_len=plain["seq_len"],
        seed=at_least(plain["seed"], 0, "seed"),
        indexer_seed=at_least(plain["indexer_seed"], 0, "indexer_seed"),
        index_every=regular(sharing(plain.get("index_every", 1), "index_every"), model),  # 1: runs of before it
        dtype=compute_dtype(plain["dtype"], trainer.accelerator),
        ops=text(plain["ops"], "ops"),
        compile=flag(plain.get("compile", False), "compile"),  # runs of before it had none
        in_training=flag(plain["precision"].get("in_training", False), "precision.in_training"),
        output_dir=text(plain["output_dir"], "output_dir"),
        study=folder_name(plain["study"], "name"),
        resume=flag(plain["resume"], "resume"),
        rerun=flag(plain["rerun"], "rerun"),
        stale=one_of(plain["stale"], ("rerun", "keep"), "stale"),
        dense_control=flag(plain["dense_control"], "dense_control"),
        allow_targets=admitted,
        options={group: choice(plain, group) for group in plain["choices"]}
        | {"model": model.option, "data": data.option},
        content=plain,
    )


def stages(plain: dict[str, Any], given: bool) -> Recipe:
    """The recipe as the model and the judge leave it.

    Args:
        given: the base is a pretrained model, as it is.

    Raises:
        ValueError: the recipe is impossible, or leaves nothing to judge.
    """
    recipe = recipe_of(nested(plain, "recipe"), plain["steps"])
    if given:
        recipe = replace(recipe, dense_steps=0, dense_until=None)
    elif recipe.warmup_steps and not recipe.dense_steps:
        raise ValueError(
            f"recipe.warmup.steps = {recipe.warmup_steps}: a warm-up needs a model that is trained already: give "
            "recipe.dense.steps from 1, model=pretrained model.path=..., or no warm-up (recipe=scratch)."
        )
    return untouched(recipe, given) if one_of(plain["judge"], ("val", "swap"), "judge") == "swap" else recipe


def regular(every: int | tuple[int, ...], model: Part) -> int | tuple[int, ...]:
    """Layers that lead at equal distances as this distance, which is the same thing: [0, 2] of four layers is 2.

    Of a pretrained model, where how many of its layers are routed is known only when it is there, as they are given.
    """
    if isinstance(every, int) or model.cls.given:
        return every
    layers = model.cls.size(model.node).layers
    step = every[1] if len(every) > 1 else layers
    return step if every == tuple(range(0, layers, step)) else every


def settled(plain: dict[str, Any], admitted: tuple[str, ...]) -> dict[str, Any]:
    """The configuration with the indexer that its option stands for in that option's place, name and settings alike.

    Raises:
        ValueError: the option stands for none at this length.
    """
    given = Part("indexer", choice(plain, "indexer"), option_of(plain["indexer"], "indexer"), admitted)
    try:
        found = given.cls.stands_for(given.node, plain["seq_len"])
    except targets.TargetRefused:  # told when the indexer is made
        return plain
    if found is None:
        return plain
    option, node = found
    changed = set(plain["overridden"]) - {"indexer"} | ({"indexer"} if option.endswith("~") else set())
    choices = plain["choices"] | {"indexer": option.removesuffix("~")}
    return settled(plain | {"indexer": node, "choices": choices, "overridden": sorted(changed)}, admitted)


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
