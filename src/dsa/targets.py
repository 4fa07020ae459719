"""Which classes a configuration may name, and what they are called with: nothing else of it is ever run.

The node is read as plain data first, so that what is checked is what is called.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

from dsa.checks import flag
from dsa.kinds import check_arguments, check_kinds

PACKAGES = ("dsa", "torch.optim")  # besides those that the user admits (allow_targets)
SLOTS = {  # where a configuration names a class (* = under any name), and what that has to be a subclass of
    "model": "dsa.backbones.Backbone",
    "indexer": "dsa.indexers.Indexer",
    "pattern": "dsa.patterns.Pattern",
    "pattern.patterns.*": "dsa.patterns.Pattern",
    "selector": "dsa.selectors.Selector",
    "precision": "dsa.precision.Precision",
    "data": "dsa.data.DataModule",
    "data.source": "dsa.data.Source",
    "data.source.corpus": "dsa.data.Corpus",
    "data.source.tokenizer": "dsa.data.Tokenizer",
    "data.source.recall_slice": "dsa.data.RecallSlice",
    "objective": "dsa.training.objective.IndexerObjective",
    "optimizer": "torch.optim.Optimizer",
    "logger": "dsa.training.loggers.RunLogger",
}
DEFERRED = "optimizer"  # made later, with the parameters: its node says `_partial_: true`
HOW = (
    "To admit a package of your own, give allow_targets=[{0}] to train.py, sweep.py and load_run, "
    "--allow-target {0} to python -m dsa.study and python -m dsa.analysis selection."
)


class TargetRefused(ValueError):
    """A configuration names something that it may not."""


def maker(
    node: Any, slot: str, admitted: Sequence[str], typed: Mapping[str, str] = MappingProxyType({})
) -> Callable[..., Any]:
    """What makes the object of a slot, once its node and those inside were checked.

    Args:
        node: plain data, every interpolation resolved.
        slot: one of SLOTS.
        admitted: packages of the user's own.
        typed: names under which a node above this one takes settings and passes them on.

    Raises:
        TargetRefused: a node names no class, one of a package that nobody admitted, or one that the slot cannot take.
        ValueError: here or when it is made: a setting is of another kind than the class's annotation says, or none of
            the class's.
    """
    if not isinstance(node, dict):
        raise TargetRefused(f"{slot} = {node}: give the settings of a class, which _target_ names.")
    settings = {str(key): value for key, value in node.items()}
    made = class_of(settings.pop("_target_", None), slot, wanted(slot), admitted)
    deferred = slot == DEFERRED and flag(settings.pop("_partial_", True), f"{slot}._partial_")
    names = {key: typed.get(key, f"{slot}.{key}") for key in settings}
    inner = {}
    for key, value in settings.items():
        place = f"{slot}.{key}"
        if key.startswith("_"):
            raise TargetRefused(f"{place} = {value}: a class gets its settings by their names alone.")
        if place in SLOTS and value is not None:
            inner[key] = maker(value, place, admitted, names)
        elif f"{place}.*" in SLOTS and isinstance(value, dict):
            inner[key] = each(value, place, admitted)
        for where, target in targets(value, place) if place not in SLOTS and key not in inner else ():
            raise TargetRefused(f"{where} = {target}: no class can be given there.")

    check_kinds(made, {names[key]: (key, value) for key, value in settings.items() if key not in inner})

    def make(**arguments: Any) -> Any:
        given = settings | {key: make_inner() for key, make_inner in inner.items()} | arguments
        check_arguments(made, given, slot, whole=not deferred)
        return functools.partial(made, **given) if deferred else made(**given)

    return make


def each(nodes: dict[Any, Any], place: str, admitted: Sequence[str]) -> Callable[[], dict[str, Any]]:
    """What makes the objects that stand under names of their own in one setting; raises as `maker`, and says which."""
    makers = {str(name): maker(node, f"{place}.{name}", admitted) for name, node in nodes.items()}

    def make() -> dict[str, Any]:
        made = {}
        for name, make_one in makers.items():
            try:
                made[name] = make_one()
            except ValueError as error:
                raise ValueError(f"{place}.{name}: {error}") from error
        return made

    return make


def wanted(slot: str) -> str:
    """What the class of a slot has to be a subclass of."""
    return SLOTS[slot] if slot in SLOTS else SLOTS[f"{slot.rpartition('.')[0]}.*"]


def slot_class(node: Any, slot: str, admitted: Sequence[str]) -> Any:
    """The class that a slot's node names, checked."""
    return class_of(node.get("_target_") if isinstance(node, dict) else node, slot, wanted(slot), admitted)


def class_of(target: Any, slot: str, base: str, admitted: Sequence[str]) -> type:
    """The class of that name: of an admitted package, by its name and by its home, and a subclass of `base`.

    Raises:
        TargetRefused: it is not; nothing outside the admitted packages was imported.
    """
    name, packages = str(target), (*PACKAGES, *admitted)
    foreign = TargetRefused(
        f"{slot}._target_ = {name}: configs may only name classes of {', '.join(packages)}. "
        f"{HOW.format(name.split('.')[0])}"
    )
    if not inside(name, packages):
        raise foreign
    try:
        found = located(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise TargetRefused(f"{slot}._target_ = {name}: no such class ({error}).") from error
    if not isinstance(found, type):
        raise TargetRefused(f"{slot}._target_ = {name}: a {type(found).__name__}, no class.")
    if not inside(found.__module__, packages):
        raise foreign
    if located(base) not in found.__mro__:  # nominal: what merely looks alike was not written for this
        raise TargetRefused(f"{slot}._target_ = {name}: give a subclass of {base}.")
    return found


def inside(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name lies in one of the packages."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def targets(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in plain data, with the key it stands at."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key == "_target_":
            yield f"{path}.{key}", value
        if isinstance(value, dict | list):
            yield from targets(value, f"{path}.{key}")


def located(name: str) -> Any:
    """What a module calls by that name."""
    module, _, own = name.rpartition(".")
    return getattr(import_module(module), own)
