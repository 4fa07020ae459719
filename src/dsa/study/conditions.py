"""The conditions of a study, written out: blocks of lists become labels, each with its overrides."""

import itertools
from collections.abc import Iterator
from typing import Any

from dsa.artifacts.names import GROUPS
from dsa.study.composer import Layer
from dsa.study.labels import named, valued
from dsa.study.lists import as_list


def mapping(value: Any, name: str) -> dict[str, Any]:
    """A setting that holds others; empty for none."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} = {value}: give key: value.")
    return value or {}


def as_blocks(conditions: Any, given: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Blocks of conditions, with the lists of the command line in place of those they vary; takes these from given.

    Without conditions of its own a study compares what the command line lists; its only one if it lists nothing.
    """
    if conditions is None:
        only = "-".join(str(values[0]) for key, values in given.items() if key in GROUPS)
        lists: dict[str, Any] = {key: given.pop(key) for key in list(given) if len(given[key]) > 1}
        return [lists or {"name": only or "default"}]
    blocks = [dict(mapping(b, "conditions")) for b in (conditions if isinstance(conditions, list) else [conditions])]
    for key in list(given):
        places = [block for block in blocks if key in block and len(as_list(block[key])) > 1]
        if places:
            values = given.pop(key)
            for block in places:
                block[key] = values
    return blocks


def labelled(blocks: list[dict[str, Any]], groups: set[str]) -> dict[str, Layer]:
    """The conditions of all blocks by label; a value that one list says twice counts once.

    Raises:
        ValueError: two conditions have one label.
    """
    out: dict[str, Layer] = {}
    for block in blocks:
        own: dict[str, Layer] = {}
        for label, layer in expand(block, groups):
            if own.setdefault(label, layer) != layer or label in out:
                raise ValueError(
                    f"conditions: two of them are labelled {label}; give each a block of its own with a name."
                )
        out |= own
    return out


def expand(block: dict[str, Any], groups: set[str]) -> Iterator[tuple[str, Layer]]:
    """The conditions of a block, each with a label.

    A block is the product of its lists, beside what it gives once. `zip` holds lists to be paired instead; `name`
    names the only condition of a block.
    """
    block = dict(block)
    name, paired = block.pop("name", None), {k: as_list(v) for k, v in (block.pop("zip", None) or {}).items()}
    lists = {key: as_list(value) for key, value in block.items()}
    for key, values in {**lists, **paired}.items():
        if not values:
            raise ValueError(f"conditions: {key} lists nothing.")
    if len({len(values) for values in paired.values()}) > 1:
        sizes = ", ".join(f"{key} {len(values)}" for key, values in paired.items())
        raise ValueError(f"conditions: zip pairs lists of one length, these have {sizes}.")
    pairs = [dict(zip(paired, row, strict=True)) for row in zip(*paired.values(), strict=True)] or [{}]
    varied = [key for key, values in lists.items() if len(values) > 1] + list(paired)
    if name is not None and (len(pairs) > 1 or any(len(values) > 1 for values in lists.values())):
        raise ValueError(f"conditions: the block named {name} has several conditions; give each a block of its own.")
    for row in itertools.product(*lists.values()):
        for pair in pairs:
            layer = {**dict(zip(lists, row, strict=True)), **pair}
            yield name or label_of(layer, {key: {**lists, **paired}[key] for key in varied}, groups), layer


def label_of(layer: Layer, varied: dict[str, list[Any]], groups: set[str]) -> str:
    """A condition's label: its options, and the values that vary."""
    parts = [str(layer[key]) for key in layer if key in groups and (key in varied or not varied)]
    parts += [valued(key, layer[key], values) for key, values in varied.items() if key not in groups]
    return "-".join(parts or [str(value) for value in layer.values() if value is not None] or ["default"])


def multiplied(conditions: dict[str, Layer], key: str, values: list[Any]) -> dict[str, Layer]:
    """Every condition with every value of one more key."""
    names = [named(key, value, values) or value for value in values]
    return {
        f"{label}-{name}": {**layer, key: value}
        for label, layer in conditions.items()
        for name, value in zip(names, values, strict=True)
    }
