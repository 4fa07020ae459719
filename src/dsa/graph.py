"""What must exist for a run: base <- indexers <- judgement, and joint <- judgement, each named by what shapes it."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from dsa.artifacts.closure import fingerprint
from dsa.artifacts.digest import digest
from dsa.artifacts.names import GROUPS
from dsa.spec import Spec

Kind = Literal["base", "indexers", "joint", "judgement"]
ROOTS: dict[Kind, tuple[str, ...]] = {
    "base": ("dsa.training.base",),
    "indexers": ("dsa.training.cohort",),
    "joint": ("dsa.training.joint",),
    "judgement": ("dsa.judging.judge",),
}
"""The module that makes each kind: its code is what that imports, and the files behind the classes of its own parts."""

WINDOW, SINKS = {"nearest": True}, {"sinks": 4}
"""What the opponents of a composition are: the nearest keys at its budget, and a row's first ones before them."""


@dataclass(frozen=True)
class Need:
    """An artifact that must exist, made now or before.

    Args:
        label: readable beginning of its name.
        identity: all that shapes it, as plain data.
        needs: artifacts that it is made from.
        targets: classes that it runs through besides the core, as in `_target_`.
    """

    kind: Kind
    label: str
    identity: dict[str, Any] = field(repr=False)
    needs: "tuple[Need, ...]" = field(default=(), repr=False)
    targets: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def hash(self) -> str:
        return digest([self.kind, self.identity, [need.hash for need in self.needs]])

    @property
    def name(self) -> str:
        return f"{self.label}-{self.hash}"

    @property
    def code(self) -> str:
        """Fingerprint of the source that it ran through, and all that it is made from."""
        return fingerprint(self.roots)

    @property
    def roots(self) -> tuple[str, ...]:
        """Modules and classes that lead to that source."""
        before = (root for need in self.needs for root in need.roots)
        return tuple(dict.fromkeys([*ROOTS[self.kind], *self.targets, *before]))

    @property
    def schedule(self) -> str:
        """Hash of how it is trained apart from the rates: what agrees in it can be trained in one pass."""
        stage = self.identity["stage"] or {}
        return digest({name: value for name, value in stage.items() if name != "lr"})

    @property
    def lesson(self) -> str:
        """Of indexers: hash of the base and of the rows that they learn from; a base that was trained here has its
        rows in its own."""
        base = self.needs[0].hash
        return digest([base, self.identity["rows"]]) if "rows" in self.identity else base

    @property
    def base(self) -> "Need | None":
        """The base among what it is made from."""
        return next((need for need in self.needs if need.kind == "base"), None)

    @property
    def indexers(self) -> "Need | None":
        """The indexers among what it is made from."""
        return next((need for need in self.needs if need.kind == "indexers"), None)


@dataclass(frozen=True)
class Graph:
    """Every artifact of one run; None where the run has none.

    Args:
        dense: the judgement of the base as it is.
        swap: of the composition on the untouched base; window: of the nearest keys at its budget there; of
            a pretrained model sinks too: of the first keys and the nearest.
        control: the joint training with dense attention.
        final: the judgement that is the run's result; control_final: of the control.
        draw: seed and training rows, where the base is a given model and the same for all: they tell runs apart.
    """

    base: Need | None
    indexers: Need | None
    joint: Need | None
    control: Need | None
    dense: Need | None
    swap: Need | None
    window: Need | None
    final: Need
    control_final: Need | None
    sinks: Need | None = None
    draw: list[Any] | None = None

    @cached_property
    def hash(self) -> str:
        """Of the run: two runs of equal hash have equal numbers."""
        parts = (self.final, self.swap, self.window, self.dense)
        return digest([None if part is None else part.hash for part in parts] + ([self.draw] if self.draw else []))

    @cached_property
    def place(self) -> str:
        """Hash of the base, and of the rows that this run draws where the base is the same for all: what is judged in
        one process."""
        base = (self.base or self.final.needs[0]).hash
        return digest([base, self.draw]) if self.draw else base

    @property
    def code(self) -> str:
        """Fingerprint of all source that the run's numbers come from."""
        return digest([part.code for part in self.parts], 12)

    @property
    def parts(self) -> list[Need]:
        """What the run's own numbers come from."""
        parts = (self.base, self.indexers, self.joint, self.final)
        return [part for part in parts if part is not None]


def graph_of(spec: Spec, corpus: str | None) -> Graph:
    """The artifacts that a run needs.

    Args:
        corpus: fingerprint of the data; None if it could not be read, its settings then stand for it.
    """
    content = spec.data.node["source"] if corpus is None else corpus
    base = base_of(spec, content) if spec.recipe.dense_steps or spec.given else None
    draw = [spec.seed, rows_of(spec, content)] if spec.given else None
    dense = None if base is None else judgement_of(spec, content, base, None, None)
    if not spec.sparse:
        assert dense is not None
        return Graph(base, None, None, None, dense, None, None, dense, None, draw=draw)
    indexers = indexers_of(spec, content, base) if spec.uses_indexer and base is not None else None
    swap = window = sinks = None
    if base is not None:
        swap = dense if spec.dense else judgement_of(spec, content, base, indexers, composition_of(spec))
        pattern = indexers if spec.trains_pattern else None  # it is trained beside them
        window = swap if spec.dense else judgement_of(spec, content, base, pattern, window_of(spec))
        if spec.given and not spec.dense:
            sinks = judgement_of(spec, content, base, pattern, window_of(spec) | SINKS)
    if not spec.recipe.sparse_steps:
        assert swap is not None
        return Graph(base, indexers, None, None, dense, swap, window, swap, None, sinks, draw)
    control = joint_of(spec, content, base, None, None)
    joint = control if spec.dense else joint_of(spec, content, base, indexers, composition_of(spec, trained=True))
    control_final = judgement_of(spec, content, control, None, None)
    if spec.dense:
        return Graph(base, indexers, joint, control, dense, swap, window, control_final, control_final, draw=draw)
    final = judgement_of(spec, content, joint, None, composition_of(spec))
    return Graph(base, indexers, joint, control, dense, swap, window, final, control_final, sinks, draw)


def composition_of(spec: Spec, trained: bool = False) -> dict[str, Any]:
    """What chooses keys, apart from the indexers themselves.

    Args:
        trained: as training sees it: without the format that is applied after it.
    """
    out: dict[str, Any] = {"pattern": spec.pattern.node, "selector": spec.selector.node}
    if not spec.uses_indexer:
        return out
    return out | {"precision": None if trained and not spec.in_training else spec.precision.node}


def window_of(spec: Spec) -> dict[str, Any]:
    """The nearest keys at a composition's budget: the same for every indexer, format, and control of that budget."""
    budget = spec.selector.cls.budget(spec.selector.node)
    return {"pattern": spec.pattern.node, "selector": budget} | WINDOW


def rows_of(spec: Spec, content: Any) -> list[Any]:
    """What decides the training rows."""
    node = spec.data.node
    return [content, *(node[name] for name in ("_target_", "seed", "seq_len", "batch_size"))]


def model_of(spec: Spec, content: Any) -> dict[str, Any]:
    """What decides a backbone's initial weights and what it is trained on; of a given one neither is drawn."""
    model = {"model": spec.model.cls.identity(spec.model.node), "seq_len": spec.seq_len, "dtype": spec.dtype}
    return model | ({"data": content} if spec.given else {"data": rows_of(spec, content), "seed": spec.seed})


def rates_of(spec: Spec, **stage: Any) -> dict[str, Any]:
    """What decides how a stage learns."""
    recipe = spec.recipe
    shared = {"lr_warmup": recipe.lr_warmup, "lr_final": recipe.lr_final, "clip": recipe.clip}
    return stage | shared | {"optimizer": spec.optimizer.node}


def rates_of_backbone(spec: Spec, **stage: Any) -> dict[str, Any]:
    """As `rates_of` where the backbone learns; that its layers are not compiled goes unsaid."""
    return rates_of(spec, **stage) | ({"compile": True} if spec.compile else {})


def base_of(spec: Spec, content: Any) -> Need:
    """The backbone after dense training; one that somebody trained as it is, the same for whatever rows are drawn of a
    text."""
    recipe = spec.recipe
    stage = rates_of_backbone(spec, steps=recipe.dense_steps, lr=recipe.dense_lr, until=recipe.dense_until)
    targets = (spec.model.target, *spec.data.targets, spec.optimizer.target)
    label = named(spec, ["dense"], recipe=False, drawn=not spec.given)
    return Need("base", label, model_of(spec, content) | {"stage": None if spec.given else stage}, targets=targets)


def indexers_of(spec: Spec, content: Any, base: Need) -> Need:
    """The indexers of all sites, after the warm-up; without a warm-up as they begin."""
    recipe = spec.recipe
    stage = rates_of(spec, steps=recipe.warmup_steps, lr=recipe.warmup_lr)
    identity = {
        **indexer_of(spec),
        "objective": objective_of(spec),
        "stage": stage if recipe.warmup_steps else None,
        "precision": spec.precision.node if spec.in_training else None,
    }
    if spec.given:
        identity["rows"] = rows_of(spec, content)
    targets = [spec.indexer.target, spec.objective.target, *([spec.precision.target] if spec.in_training else [])]
    own = [*spec.shared, *([spec.precision.option] if spec.in_training else [])]
    if spec.trains_pattern:  # others shape no warm-up
        identity["pattern"] = spec.pattern.node
        targets += spec.pattern.targets
        own.append(spec.pattern.option)
    label = named(spec, [spec.indexer.option, *own], recipe=False)
    return Need("indexers", label, identity, (base,), tuple(targets))


def indexer_of(spec: Spec) -> dict[str, Any]:
    """What decides which indexers there are and how they begin; one at every site goes unsaid, and that queries are
    projected from hidden states."""
    node = {name: value for name, value in spec.indexer.node.items() if (name, value) != ("latent", False)}
    own: dict[str, Any] = {"indexer": node, "indexer_seed": spec.indexer_seed}
    return own if spec.index_every == 1 else own | {"index_every": spec.index_every}


def objective_of(spec: Spec) -> dict[str, Any]:
    """The objective apart from what only joint training asks of it."""
    return {name: value for name, value in said_of(spec).items() if name != "train_when_sparse"}


def said_of(spec: Spec) -> dict[str, Any]:
    """The objective; that losses which teach the same are not balanced goes unsaid."""
    return {name: value for name, value in spec.objective.node.items() if (name, value) != ("balance", "fixed")}


def joint_of(
    spec: Spec, content: Any, base: Need | None, indexers: Need | None, composition: dict[str, Any] | None
) -> Need:
    """Backbone and indexers after joint training; with dense attention where there is no composition."""
    recipe = spec.recipe
    stage = rates_of_backbone(spec, steps=recipe.sparse_steps, lr=recipe.sparse_lr)
    identity: dict[str, Any] = {"stage": stage, "composition": composition, "rows": rows_of(spec, content)}
    targets: tuple[str, ...] = (spec.model.target, *spec.data.targets, spec.optimizer.target)
    if composition is not None:
        targets = (*targets, *spec.pattern.targets, spec.selector.target)
        if spec.uses_indexer or spec.pattern.cls.learns:
            stage["indexer_lr"] = recipe.sparse_indexer_lr
        if spec.uses_indexer:
            identity["objective"] = said_of(spec)
            targets = (*targets, spec.indexer.target, spec.objective.target)
            if spec.in_training:
                targets = (*targets, spec.precision.target)
            if indexers is None:
                identity |= indexer_of(spec)
    if base is None:
        identity |= model_of(spec, content)
    label = named(spec, ["dense"] if composition is None else condition_of(spec, trained=True))
    needs = tuple(need for need in (base, indexers) if need is not None)
    return Need("joint", label, identity, needs, targets)


def judgement_of(spec: Spec, content: Any, on: Need, indexers: Need | None, composition: dict[str, Any] | None) -> Need:
    """What a composition measures on held-out rows; dense attention where there is none."""
    node = spec.data.node
    held_out = [content, *(node.get(name) for name in ("_target_", "batch_size", "eval_batch_size", "eval_batches"))]
    identity = {"composition": composition, "held_out": held_out, "seq_len": spec.seq_len, "dtype": spec.dtype}
    if spec.given and indexers is None and composition is not None and spec.selector.make().calibrates:
        identity["calibrated_on"] = rows_of(spec, content)
    targets: tuple[str, ...] = (spec.model.target, *spec.data.targets)
    if composition is not None:
        targets = (*targets, *spec.pattern.targets, str(composition["selector"]["_target_"]))
        if spec.uses_indexer and composition.get("nearest") is None:
            targets = (*targets, spec.indexer.target, spec.precision.target)
    needs = (on,) if indexers is None else (on, indexers)
    return Need("judgement", "", identity, needs, targets)


def condition_of(spec: Spec, trained: bool = False) -> list[str]:
    """The options that say what a run compares; those that are the default go unsaid.

    Args:
        trained: as training sees it: without the format that is applied after it.
    """
    names = spec.condition
    order = GROUPS if spec.uses_indexer else ("selector", "pattern") if spec.sparse else ("selector",)
    unsaid = {"selector": "topk", "precision": "fp32"}
    left_out = ("precision",) if trained and not spec.in_training else ()
    said = [names[group] for group in order if group not in left_out and unsaid.get(group) != names[group]]
    return said + (spec.shared if spec.uses_indexer else [])


def named(spec: Spec, parts: list[str], recipe: bool = True, drawn: bool = True) -> str:
    """A readable name: what is special, model and data, length, seed; an option of a subfolder names no folder here.

    Args:
        drawn: the seed has a part in it.
    """
    unsaid = {"model": None if spec.given else "tiny", "data": "stdlib", "recipe": "continue"}
    for group in ("model", "data", *(["recipe"] if recipe else [])):
        name = spec.options.get(group, "custom")
        if unsaid[group] != name and not (group == "recipe" and name == "dense"):
            parts.append(name)
    other = spec.uses_indexer and spec.indexer_seed != spec.seed and parts[0] != "dense"
    seeds = [f"s{spec.seed}"] * drawn + [f"i{spec.indexer_seed}"] * other
    whole = "-".join([*parts, f"L{spec.seq_len}", *seeds])
    return re.sub(r"[/\\\0]", "-", whole)


def run_id(spec: Spec, graph: Graph) -> str:
    """Readable name of a run that ends in its hash."""
    judged = ["swap"] if spec.content["judge"] == "swap" else []
    return f"{named(spec, [*condition_of(spec), *judged])}-{graph.hash}"
