"""What a study asks: its yaml and the command line as one statement, conditions written out."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dsa.artifacts.names import BUDGET, CLAIMS, CONTROLS, METRICS, OF_TURNS, OWN, USUAL_CONTROLS, is_compared
from dsa.checks import above_zero, flag, null_or_positive, one_of
from dsa.study.composer import Layer, stacked
from dsa.study.conditions import as_blocks, labelled, mapping, multiplied
from dsa.study.lists import as_list

KEYS = {
    "question", "hypothesis", "baseline", "conditions", "common", "budget", "seq_len", "seed", "indexer_seed", "margin",
    "contrasts", "controls", "exploratory", "judge", "finalists", "union",
}  # fmt: skip
JUDGE = ("swap", "val", "both")


@dataclass(frozen=True)
class Study:
    """One question, and what has to be trained and judged to answer it.

    Args:
        hypothesis: claim (a statement that the statistics can accept or reject) and metric.
        baseline: label of the condition that the others are compared with.
        conditions: overrides of each condition, by label.
        common: overrides of every run, controls too; those of the yaml and of the command line.
        given: values inside groups that the command line gives once: no condition's option makes them fall away.
        written: the yaml's own overrides of every run.
        judge: swap (backbone untouched), val (after joint training) or both.
        finalists: how many conditions are trained jointly, on fresh seeds; None = all, on the same seeds.
        indexer_seed: of the initial weights of the indexers; None = each run's seed.
        budget: keys of each query in the controls [tokens, or a share of the length]; own: those of the conditions,
            each of which then has controls and a baseline at its own budget.
        margin: largest difference that counts as none, by metric.
        contrasts: planned differences by name: labels whose mean (of `sums`, sum) counts (plus), less that of others
            (minus).
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
    indexer_seed: list[int] | None = None
    judge: str = "val"
    finalists: int | None = None
    budget: Any = None
    margin: dict[str, float] = field(default_factory=dict)
    controls: tuple[str, ...] = USUAL_CONTROLS
    exploratory: bool = False
    contrasts: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: Layer = field(default_factory=dict)
    written: Layer = field(default_factory=dict)

    @property
    def metric(self) -> str:
        return str(self.hypothesis["metric"])

    @property
    def of_turns(self) -> bool:
        """Whether the claim rests on times and not on seeds."""
        return self.hypothesis["claim"] in OF_TURNS

    @property
    def comparisons(self) -> int:
        """Comparisons with the baseline at one length, on the study's metric.

        Finalists alone are compared after joint training; with the backbone untouched all are.
        """
        others = max(1, len(self.conditions) - 1)
        return others if self.finalists is None or self.metric.startswith("swap_") else min(self.finalists, others)

    @property
    def decided(self) -> int:
        """What the correction counts on which the study's claim rests.

        Contrasts count at every length, and their change over the lengths; a claim of some condition counts comparisons
        over all lengths, one that an order reverses every pair at every length. A claim that needs every comparison to
        hold counts those of one length.
        """
        claim, lengths = self.hypothesis["claim"], len(self.seq_len)
        if claim == "contrasts_differ":
            return max(1, len(self.contrasts) * (lengths + (lengths > 1)))
        if claim == "some_condition_differs":
            return self.comparisons * lengths
        if claim in ("order_depends_on_length", "order_depends_on_size"):
            sizes = Counter(str(sorted(self.around(layer).items())) for layer in self.conditions.values()).values()
            return max(1, sum(size * (size - 1) // 2 for size in sizes) * lengths)
        return self.comparisons

    @property
    def fresh(self) -> list[int]:
        """As many seeds as the study's own, after them: those of the confirmation."""
        first = max(self.seed) + 1
        return list(range(first, first + len(self.seed)))

    def overrides(self, label: str, groups: set[str]) -> Layer:
        """All that holds for a condition; what was typed once stands, or composing the condition refuses it."""
        return stacked(self.common, self.conditions[label], groups=groups) | self.given

    def around(self, layer: Layer) -> Layer:
        """What a condition changes besides what is compared: those that agree in it share base and controls."""
        return {k: v for k, v in layer.items() if not is_compared(k, self.budget) and self.common.get(k) != v}

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
        ValueError: something in it is unknown or impossible; the sentence names it, what it got and what is allowed.
    """
    unknown = sorted(set(plan) - KEYS)
    if unknown:
        raise ValueError(f"study {name}: unknown key {', '.join(unknown)}; a study has {', '.join(sorted(KEYS))}.")
    for key, values in given.items():
        if not values:
            raise ValueError(f"{key} = []: lists nothing; give one value or several.")
    given = dict(given)
    lists = {
        key: numbers(key, given.pop(key) if key in given else as_list(plan.get(key, default)))
        for key, default in (("seq_len", 512), ("seed", 0))
    }
    of_indexers = given.pop("indexer_seed", None) or plan.get("indexer_seed")
    own = dict(as_written(name, plan, groups))
    blocks = as_blocks(plan.get("conditions"), given)
    conditions = labelled(blocks, groups)
    for label, layer in conditions.items():
        for key in layer.keys() & given.keys():
            typed = ", ".join(map(str, given[key]))
            raise ValueError(f"{key} = {typed}: condition {label} of study {name} sets it already.")
    for key in [key for key, values in given.items() if len(values) > 1]:
        conditions = multiplied(conditions, key, given.pop(key))
    if not conditions:
        raise ValueError(f"study {name}: it has no condition.")
    fixed = {key: values[0] for key, values in given.items()}
    written = dict(mapping(plan.get("common"), "common"))
    judge = one_of(plan.get("judge") or "val", JUDGE, "judge")
    return Study(
        name=name,
        question=question_of(plan, own, conditions),
        hypothesis=hypothesis_of(plan.get("hypothesis"), judge),
        baseline=baseline_of(plan.get("baseline"), own, conditions) or next(iter(conditions)),
        conditions=conditions,
        common=stacked(written, fixed, groups=groups),
        budget=budget_of(plan.get("budget"), conditions),
        seq_len=lists["seq_len"],
        seed=lists["seed"],
        indexer_seed=None if of_indexers is None else numbers("indexer_seed", as_list(of_indexers)),
        judge=judge,
        finalists=finalists_of(plan.get("finalists"), judge),
        margin=margins(plan.get("margin"), judge),
        controls=controls_of(plan.get("controls", list(USUAL_CONTROLS))),
        contrasts=contrasts_of(plan.get("contrasts"), own, conditions),
        exploratory=flag(plan.get("exploratory", False), "exploratory"),
        given={key: value for key, value in fixed.items() if key not in groups},
        written=written,
    )


def as_written(name: str, plan: dict[str, Any], groups: set[str]) -> dict[str, Layer]:
    """The conditions of a yaml, without the command line; its baseline is one of them.

    Raises:
        ValueError: it is none.
    """
    if plan.get("conditions") is None:
        return {}
    conditions = labelled(as_blocks(plan["conditions"], {}), groups)
    wanted = plan.get("baseline")
    if wanted is not None and found(wanted, conditions) is None:
        raise ValueError(f"baseline = {wanted}: no condition of study {name}; it has {', '.join(conditions)}.")
    return conditions


def hypothesis_of(given: Any, judge: str) -> dict[str, Any]:
    """Claim and metric, known ones."""
    default = {"claim": "some_condition_differs", "metric": "swap_val_loss" if judge == "swap" else "val_loss"}
    out = default | mapping(given, "hypothesis")
    one_of(out["claim"], CLAIMS, "hypothesis.claim")
    check_metric(out["metric"], "hypothesis.metric", judge)
    return out


def check_metric(metric: Any, name: str, judge: str) -> None:
    """Refuse a metric that nobody knows or that this study never measures."""
    one_of(metric, METRICS, name)
    if judge == "swap" and not str(metric).startswith("swap_"):
        raise ValueError(f"{name} = {metric}: measured after joint training, of which judge = swap does none; "
                         f"give swap_{metric}, or judge: val.")  # fmt: skip


def margins(given: Any, judge: str) -> dict[str, float]:
    """The largest difference that counts as none, by metric."""
    out = mapping(given, "margin") or {("swap_val_loss" if judge == "swap" else "val_loss"): 0.01}
    for metric, margin in out.items():
        one_of(metric, METRICS, "margin")
        above_zero(margin, f"margin.{metric}")
    return out


def finalists_of(given: Any, judge: str) -> int | None:
    """How many conditions are trained jointly; None for all."""
    if given is not None and judge != "both":
        raise ValueError(f"finalists = {given}: chosen by swap and then trained jointly; give judge: both with it.")
    return null_or_positive(given, "finalists", "conditions to train jointly, or null for all")


def budget_of(given: Any, conditions: dict[str, Layer]) -> Any:
    """The controls' budget; `own` asks each condition for one.

    Raises:
        ValueError: a condition gives none.
    """
    lacking = [label for label, layer in conditions.items() if BUDGET not in layer]
    if given == OWN and lacking:
        raise ValueError(f"budget = {OWN}: each condition gives a {BUDGET}, for its controls; {lacking[0]} gives none.")
    return given


def controls_of(given: Any) -> tuple[str, ...]:
    """The controls, known ones."""
    controls = tuple(as_list(given))
    for control in controls:
        if control not in CONTROLS:
            raise ValueError(f"controls: {control} is none of {', '.join(CONTROLS)}.")
    return controls


def contrasts_of(
    given: Any, written: dict[str, Layer], conditions: dict[str, Layer]
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Planned contrasts between conditions; those of which the command line left out a condition are left out.

    Args:
        written: the conditions of the yaml.

    Raises:
        ValueError: one has other keys, or names what is no condition of the yaml.
    """
    out = {}
    for name, planned in mapping(given, "contrasts").items():
        planned = mapping(planned, f"contrasts.{name}")
        sums = planned.get("sums", False)
        sides = {side: as_list(labels) for side, labels in planned.items() if side != "sums"}
        if set(sides) != {"plus", "minus"} or not all(sides.values()):
            raise ValueError(f"contrasts.{name} = {planned}: give plus and minus, each with labels of conditions.")
        if not isinstance(sums, bool) or (sums and len(sides["plus"]) != len(sides["minus"])):
            raise ValueError(
                f"contrasts.{name}: sums = {sums}: give true or false, with true as many labels in plus as in minus."
            )
        labels = [*sides["plus"], *sides["minus"]]
        unknown = [label for label in labels if label not in written]
        if unknown or len(set(labels)) < len(labels):
            raise ValueError(
                f"contrasts.{name}: {', '.join(map(str, unknown)) or 'a label stands twice'}; give each label once, "
                f"of {', '.join(written)}."
            )
        if all(conditions.get(label) == written[label] for label in labels):
            out[name] = sides | ({"sums": True} if sums else {})
    return out


def question_of(plan: dict[str, Any], written: dict[str, Layer], conditions: dict[str, Layer]) -> str:
    """What a yaml asks; it speaks of its baseline, so without it nothing but how the conditions compare."""
    wanted = plan.get("baseline")
    asked = plan.get("question") if wanted is None or baseline_of(wanted, written, conditions) else None
    return str(asked or "How do these conditions compare?")


def baseline_of(wanted: Any, written: dict[str, Layer], conditions: dict[str, Layer]) -> str | None:
    """Label of the baseline; None where the yaml names none, or the command line left it out."""
    if isinstance(wanted, str) and wanted in written:
        wanted = wanted if wanted in conditions else written[wanted]
    return found(wanted, conditions)


def found(wanted: Any, conditions: dict[str, Layer]) -> str | None:
    """The condition that a baseline names: by label, or by some of its settings."""
    if isinstance(wanted, str):
        return wanted if wanted in conditions else None
    if isinstance(wanted, dict):
        same = (k for k, layer in conditions.items() if all(layer.get(key) == v for key, v in wanted.items()))
        return next(same, None)
    return None


def numbers(key: str, values: list[Any]) -> list[int]:
    """Whole numbers from 0, each once.

    Raises:
        ValueError: one is not, or there is none.
    """
    if not values or any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        raise ValueError(f"{key} = {values}: give whole numbers, as a,b or [a,b] or range(0,8).")
    return list(dict.fromkeys(values))
