"""What a study asks: its yaml and the command line as one statement, conditions written out."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from dsa.config import GROUPS
from dsa.study.composer import Layer, stacked
from dsa.study.lists import as_list

CONTROLS = ("dense", "oracle", "random", "window")
KEYS = {
    "question", "hypothesis", "baseline", "conditions", "common", "budget", "seq_len", "seed", "margin", "controls",
    "exploratory", "union",
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One question, and what has to be trained to answer it.

    Args:
        hypothesis: claim (a statement that the statistics can accept or reject) and metric.
        baseline: label of the condition that the others are compared with.
        conditions: overrides of each condition, by label.
        common: overrides of every run, controls too; those of the yaml and of the command line.
        given: values that the command line gives once, options apart: no condition's option makes them fall away.
        written: the yaml's own overrides of every run.
        budget: keys of each query in the controls [tokens, or a share of the length].
        margin: largest difference that counts as none, by metric.
        exploratory: too few seeds for a claim, and known to be.
    """

    name: str
    question: str
    hypothesis: dict[str, Any]
    baseline: str
    conditions: dict[str, Layer]
    common: Layer
    seq_len: list[int]
    seed: list[int]
    budget: Any = None
    margin: dict[str, float] = field(default_factory=dict)
    controls: tuple[str, ...] = CONTROLS
    exploratory: bool = False
    given: Layer = field(default_factory=dict)
    written: Layer = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return str(self.hypothesis.get("metric", "val_loss"))

    def overrides(self, label: str, groups: set[str]) -> Layer:
        """All that holds for a condition; what was typed once stands, or composing the condition refuses it."""
        return stacked(self.common, self.conditions[label], groups=groups) | self.given

    def dropped(self, groups: set[str]) -> dict[str, list[str]]:
        """Values of the yaml that belong to an option which is not chosen, and the conditions that lack them."""
        out: dict[str, list[str]] = {}
        for label in self.conditions:
            for key in self.written.keys() - self.overrides(label, groups).keys():
                out.setdefault(key, []).append(label)
        return {key: out[key] for key in self.written if key in out}


def read(name: str, plan: dict[str, Any], given: dict[str, list[Any]], groups: set[str]) -> Study:
    """The study of a yaml, as changed by the command line.

    Args:
        plan: the yaml's content; empty for a study without one.
        given: values by key on the command line. A key that the conditions vary replaces that list; lists of another
            key multiply the conditions; single values hold for every run.

    Raises:
        ValueError: a key is unknown, a list is empty, or a condition sets what the command line gives for all.
    """
    unknown = sorted(set(plan) - KEYS)
    if unknown:
        raise ValueError(f"study {name}: unknown key {', '.join(unknown)}; a study has {', '.join(sorted(KEYS))}.")
    for key, values in given.items():
        if not values:
            raise ValueError(f"{key} = []: lists nothing; give one value or several.")
    given = dict(given)
    seq_len = numbers("seq_len", given.pop("seq_len", []) or as_list(plan.get("seq_len", 512)))
    seed = numbers("seed", given.pop("seed", []) or as_list(plan.get("seed", 0)))
    blocks = as_blocks(plan.get("conditions"), given)
    conditions = labelled([one for block in blocks for one in expand(block, groups)])
    for label, layer in conditions.items():
        for key in (key for key in layer if key in given):
            typed = ", ".join(map(str, given[key]))
            raise ValueError(f"{key} = {typed}: condition {label} of study {name} sets it already.")
    for key in [key for key, values in given.items() if len(values) > 1]:
        conditions = multiplied(conditions, key, given.pop(key))
    if not conditions:
        raise ValueError(f"study {name}: it has no condition.")
    fixed = {key: values[0] for key, values in given.items()}
    written = dict(plan.get("common") or {})
    controls = tuple(as_list(plan.get("controls", list(CONTROLS))))
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"controls: {control} is none of {', '.join(CONTROLS)}.")
    return Study(
        name=name,
        question=str(plan.get("question") or "How do these conditions compare?"),
        hypothesis=dict(plan.get("hypothesis") or {"claim": "some_condition_differs", "metric": "val_loss"}),
        baseline=baseline_of(name, plan.get("baseline"), conditions),
        conditions=conditions,
        common=stacked(written, fixed, groups=groups),
        budget=plan.get("budget"),
        seq_len=seq_len,
        seed=seed,
        margin=dict(plan.get("margin") or {"val_loss": 0.01}),
        controls=controls,
        exploratory=bool(plan.get("exploratory", False)),
        given={key: value for key, value in fixed.items() if key not in groups},
        written=written,
    )


def as_blocks(conditions: Any, given: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Blocks of conditions, with the lists of the command line in place of those they vary; takes these from given.

    Without conditions of its own a study compares what the command line lists; its only one if it lists nothing.
    """
    if conditions is None:
        only = "-".join(str(values[0]) for key, values in given.items() if key in GROUPS)
        lists: dict[str, Any] = {key: given.pop(key) for key in list(given) if len(given[key]) > 1}
        return [lists or {"name": only or "default"}]
    blocks = [dict(block) for block in (conditions if isinstance(conditions, list) else [conditions])]
    for key in list(given):
        places = [block for block in blocks if key in block and len(as_list(block[key])) > 1]
        if places:
            values = given.pop(key)
            for block in places:
                block[key] = values
    return blocks


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
            yield name or label_of(layer, varied, groups), layer


def labelled(conditions: list[tuple[str, Layer]]) -> dict[str, Layer]:
    """Conditions by label; what is said twice counts once.

    Raises:
        ValueError: two different conditions have one label.
    """
    out: dict[str, Layer] = {}
    for label, layer in conditions:
        if out.setdefault(label, layer) != layer:
            raise ValueError(f"conditions: two of them are labelled {label}; give each a block of its own with a name.")
    return out


def label_of(layer: Layer, varied: list[str], groups: set[str]) -> str:
    """A condition's label: its options, and the values that vary."""
    parts = [str(layer[key]) for key in layer if key in groups and (key in varied or not varied)]
    parts += [f"{key.split('.')[-1]}{layer[key]}" for key in varied if key not in groups]
    return "-".join(parts or [str(value) for value in layer.values() if value is not None] or ["default"])


def multiplied(conditions: dict[str, Layer], key: str, values: list[Any]) -> dict[str, Layer]:
    """Every condition with every value of one more key."""
    return {f"{label}-{value}": {**layer, key: value} for label, layer in conditions.items() for value in values}


def baseline_of(name: str, wanted: Any, conditions: dict[str, Layer]) -> str:
    """Label of the baseline; the first condition where the command line left it out."""
    if isinstance(wanted, str) and wanted in conditions:
        return wanted
    if isinstance(wanted, dict):
        for label, layer in conditions.items():
            if all(layer.get(key) == value for key, value in wanted.items()):
                return label
    return next(iter(conditions))


def numbers(key: str, values: list[Any]) -> list[int]:
    """Whole numbers, each once.

    Raises:
        ValueError: one is not.
    """
    if not values or any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        raise ValueError(f"{key} = {values}: give whole numbers, as a,b or [a,b] or range(0,8).")
    return list(dict.fromkeys(values))


def renamed(study: Study, name: str) -> Study:
    """The same study in another folder."""
    return replace(study, name=name)
