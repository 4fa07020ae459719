"""Every run of a study, before any of them starts: deduplicated, with what cannot apply set apart."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dsa.analysis.statistics.power import enough, seeds_for_no_loss, seeds_needed, smallest_p, visible_effect
from dsa.artifacts.digest import digest
from dsa.artifacts.names import GROUPS
from dsa.build import build_data
from dsa.data import DataModule
from dsa.graph import Graph, graph_of, run_id
from dsa.spec import Spec
from dsa.study.applicable import check_indexer, fault_of, obstacle
from dsa.study.composer import Composer, Layer, Plain, root
from dsa.study.labels import valued
from dsa.study.question import Study
from dsa.study.seeds import Template, judged_only
from dsa.study.states import written
from dsa.training.settings import check_settings

APART = 1000  # what is added to a seed for the indexers of a replicate
SELECTION, CONFIRMATION = "selection", "confirmation"


@dataclass(frozen=True)
class Point:
    """A condition or control at one length: what its runs under every seed share.

    Args:
        label: of the condition or control.
        role: control or condition.
        context: what it changes besides what is compared; empty where all conditions share it.
        reason: why it cannot apply; None if it can.
        corpus: fingerprint of its data; None if they could not be read.
        indexers_apart: how far the seeds of its indexers lie from those of the conditions.
    """

    label: str
    role: str
    seq_len: int
    context: str
    template: Template = field(repr=False)
    reason: str | None
    corpus: str | None
    indexers_apart: int = 0

    def runs(self, study: Study, judge: str, seeds: list[int], phase: str | None) -> "Iterator[PlannedRun]":
        """Its runs: one for each seed and, where it has an indexer, each seed of the indexers."""
        of_indexers: list[int | None] = [*study.indexer_seed] if study.indexer_seed else [None]
        seen = set()
        for seed, other in itertools.product(seeds, of_indexers):
            if self.indexers_apart:
                other = (seed if other is None else other) + self.indexers_apart
            spec = self.template.under(seed, other)
            run = PlannedRun(self, judged_only(spec) if judge == "swap" else spec, judge, phase)
            key = run.seed if run.reason is not None else run.hash
            if key not in seen:
                seen.add(key)
                yield run


@dataclass(frozen=True)
class PlannedRun:
    """One run: which condition it is, what it describes, and what must exist for it.

    Args:
        judge: swap or val: with the backbone untouched, or after joint training.
        phase: selection or confirmation; None in a study that chooses no finalists.
    """

    point: Point
    spec: Spec = field(repr=False)
    judge: str
    phase: str | None

    @property
    def label(self) -> str:
        return self.point.label

    @property
    def role(self) -> str:
        return self.point.role

    @property
    def context(self) -> str:
        return self.point.context

    @property
    def reason(self) -> str | None:
        return self.point.reason

    @property
    def seq_len(self) -> int:
        return self.spec.seq_len

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def study(self) -> str:
        return self.spec.study

    @functools.cached_property
    def graph(self) -> Graph:
        """What must exist for it; only of a run that can apply."""
        return graph_of(self.spec, self.point.corpus)

    @functools.cached_property
    def hash(self) -> str:
        """Of what its numbers come from: two runs of equal hash have equal numbers."""
        return self.graph.hash

    @functools.cached_property
    def run_id(self) -> str:
        """Its readable name; another spelling of the same run may have named its folder."""
        place = self.spec.outputs / self.study
        return folders_in(place, written(place)).get(self.hash) or run_id(self.spec, self.graph)

    @functools.cached_property
    def folder(self) -> Path:
        return self.spec.outputs / self.study / self.run_id

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other run of a sweep."""
        return self.study, self.hash

    @property
    def compared_as(self) -> str:
        """What the analysis takes it for: condition, or the control's name."""
        return self.label.split("-")[0] if self.role == "control" else self.role


@functools.lru_cache(maxsize=64)
def folders_in(place: Path, changed: int | None) -> dict[str, str]:
    """Run folders of a study by the hash they end in, as the study's folder was when it last changed."""
    return {} if changed is None else {path.name.rpartition("-")[2]: path.name for path in place.glob("*-*")}


@dataclass
class Checked:
    """Settings that were met while planning.

    Args:
        parts: hashes of the parts of conditions that were found good.
        faults: by label, and by what the label stands for, what is wrong with its classes; None where nothing is.
    """

    parts: set[str] = field(default_factory=set)
    faults: dict[str, str | None] = field(default_factory=dict)


@dataclass
class StudyPlan:
    """A study with its runs.

    Args:
        dropped: values of its yaml that belong to an option which is not chosen, and the conditions that lack them.
        chosen: labels that go on to the confirmation, by length and context; empty until the selection is over.
    """

    study: Study
    points: list[Point]
    runs: list[PlannedRun]
    dropped: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[tuple[int, str], list[str]] = field(default_factory=dict)

    @property
    def applicable(self) -> list[PlannedRun]:
        return [run for run in self.runs if run.reason is None]

    @property
    def to_choose(self) -> bool:
        """Whether finalists are still to be chosen."""
        return self.study.finalists is not None and not self.chosen

    def confirm(self, chosen: dict[tuple[int, str], list[str]]) -> list[PlannedRun]:
        """Add the runs of the finalists, of the baseline and of the controls on fresh seeds."""
        self.chosen = chosen
        added: list[PlannedRun] = []
        for point in self.points:
            if point.role == "control" or point.label in chosen.get((point.seq_len, point.context), []):
                added += point.runs(self.study, "val", self.study.fresh, CONFIRMATION)
        self.runs += added
        return [run for run in added if run.reason is None]


def plan_study(study: Study, composer: Composer, data: "DataStore") -> StudyPlan:
    """Plan every run of a study.

    Raises:
        ValueError: a setting is impossible, no run applies, or the seeds could never show anything.
    """
    check_seeds(study)
    checked = Checked()
    layers = list(settings_of(study, composer))
    several = len({context_of(layer, study, composer.groups) for _, _, layer in layers}) > 1
    points = []
    for seq_len in study.seq_len:
        for label, role, layer in layers:
            cfg = composer.config({**layer, "seq_len": seq_len, "seed": study.seed[0]})
            cfg |= {"name": study.name, "judge": "val"}
            if study.indexer_seed:
                cfg["indexer_seed"] = study.indexer_seed[0]
            context = context_of(layer, study, composer.groups) if several else ""
            points.append(point_of(label, role, seq_len, context, cfg, study, data, checked))
    plan = StudyPlan(study, points, [], study.dropped(composer.groups))
    phase = None if study.finalists is None else SELECTION
    for judge in ("val", "swap"):  # where a condition has both on one seed, what a user gets comes first
        if judge == study.judge or (study.judge == "both" and (judge == "swap" or phase is None)):
            for point in points:
                plan.runs += point.runs(study, judge, study.seed, phase)
    if not any(point.role == "condition" and point.reason is None for point in points):
        reasons = sorted({point.reason for point in points if point.reason})
        raise ValueError(f"study {study.name}: no condition applies at any length. {' '.join(reasons[:3])}")
    return plan


def point_of(
    label: str, role: str, seq_len: int, context: str, cfg: Plain, study: Study, data: "DataStore",
    checked: Checked,
) -> Point:  # fmt: skip
    """A condition at a length, or the reason why it cannot apply there.

    Args:
        checked: what was met before; filled here.

    Raises:
        ValueError: a setting is impossible at any length.
    """
    template = Template(cfg)
    spec = template.spec
    if spec.rerun:
        raise ValueError(
            "rerun = true: a sweep goes on from what is there, also when it is started again. "
            "Give another output_dir to train everything anew, or retry_failed=true for what failed."
        )
    if label not in checked.faults:
        check_settings(spec, checked.parts)
        check_indexer(spec, label)
        key = digest([spec.model.node, spec.pattern.node, spec.selector.node])
        if key not in checked.faults:
            checked.faults[key] = fault_of(spec)
        checked.faults[label] = checked.faults[key]
    if study.judge != "val":
        judged_only(spec)
    if (fault := checked.faults[label]) is not None:
        return Point(label, role, seq_len, context, template, fault, None)
    try:
        corpus = data.of(spec).fingerprint
        reason = obstacle(spec)
    except ValueError as error:
        corpus, reason = None, str(error)
    again = role == "control" and label.split("-")[0] == "replicate"
    return Point(label, role, seq_len, context, template, reason, corpus, APART if again else 0)


def settings_of(study: Study, composer: Composer) -> Iterator[tuple[str, str, Layer]]:
    """Label, role and overrides of every condition, then of the controls: one set for each setting that is varied."""
    contexts: dict[str, Layer] = {}
    for label in study.conditions:
        whole = study.overrides(label, composer.groups)
        yield label, "condition", whole
        contexts.setdefault(context_of(whole, study, composer.groups), whole)
    for name, whole in contexts.items():
        around = {key: value for key, value in whole.items() if root(key) not in GROUPS}
        for control in study.controls:
            label = f"{control}-{name}" if len(contexts) > 1 else control
            if control == "dense":
                yield label, "control", around | {"pattern": "causal", "selector": "dense"}
            elif control == "replicate":
                again = baseline_in(study, name, composer.groups)
                if again is not None:
                    yield label, "control", again
            else:
                pattern = pattern_of_controls(study, composer)
                yield label, "control", around | pattern | selector_of_control(study, control)


def baseline_in(study: Study, context: str, groups: set[str]) -> Layer | None:
    """The baseline's overrides, or of what takes its place in a context; None if nothing does."""
    options = compared(study.overrides(study.baseline, groups))
    for label in (study.baseline, *study.conditions):
        whole = study.overrides(label, groups)
        if context_of(whole, study, groups) == context and compared(whole) == options:
            return whole
    return None


def compared(layer: Layer) -> Layer:
    """The part of a condition that is compared."""
    return {key: value for key, value in layer.items() if root(key) in (*GROUPS, "objective")}


def pattern_of_controls(study: Study, composer: Composer) -> Layer:
    """The pattern that all conditions share; where they differ in it, that of `common`, else causal."""
    common, *own = (
        {key: value for key, value in layer.items() if root(key) == "pattern"}
        for layer in (study.common, *(study.overrides(label, composer.groups) for label in study.conditions))
    )
    if all(pattern == own[0] for pattern in own):
        return own[0]
    if "pattern" in common:
        return common
    return {"pattern": "causal"} | {k: v for k, v in common.items() if composer.has(k, "pattern=causal")}


def selector_of_control(study: Study, control: str) -> Layer:
    """A control at the study's budget; without one, at the pattern's own."""
    budget = study.common.get("selector.k") if study.budget is None else study.budget
    chosen = {"indexer": "static", "selector": "topk"} if control == "static" else {"selector": control}
    return chosen | ({} if budget is None else {"selector.k": budget})


def context_of(layer: Layer, study: Study, groups: set[str]) -> str:
    """What a condition changes besides what is compared: its base and controls are its own."""
    own = {k: v for k, v in layer.items() if root(k) not in (*GROUPS, "objective") and study.common.get(k) != v}
    used = {k: [one[k] for one in study.conditions.values() if k in one] for k in own}
    return "-".join(str(v) if k in groups else valued(k, v, used[k]) for k, v in own.items())


class DataStore:
    """Data modules of planned runs, each prepared once: what a seed draws from is the same for all."""

    def __init__(self) -> None:
        self.known: dict[str, DataModule | ValueError] = {}

    def of(self, spec: Spec) -> DataModule:
        """The data of a spec, good for its fingerprint alone.

        Raises:
            ValueError: the data cannot give rows of this length.
        """
        key = digest({**spec.data.node, "seed": 0}, 32)
        if key not in self.known:
            try:
                self.known[key] = build_data(spec)
            except ValueError as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, ValueError):
            raise found
        return found


def check_seeds(study: Study) -> None:
    """Refuse a number of seeds that no result could make significant.

    Raises:
        ValueError: unless the study says that it is exploratory.
    """
    comparisons = study.comparisons
    if study.exploratory or enough(len(study.seed), comparisons):
        return
    least = smallest_p(len(study.seed))
    raise ValueError(
        f"seed: with {len(study.seed)} seeds and {comparisons} comparisons no result could be significant: "
        f"the smallest p is {least:.4f}, corrected {least * comparisons:.3f}. "
        f"Give {seeds_needed(comparisons)} seeds, or exploratory=true to look without a claim."
    )


def outlook(study: Study) -> str:
    """What effect the study's seeds can see."""
    seeds = len(study.seed)
    if seeds < 2:
        return "1 seed: differences cannot be told from chance"
    if not enough(seeds, study.comparisons):
        return f"{seeds} seeds, {study.comparisons} comparisons a length: too few to show anything, exploratory"
    effect = visible_effect(seeds, study.comparisons)
    claim = ", exploratory: no claim" if study.exploratory else ""
    return (
        f"{seeds} seeds, {study.comparisons} comparisons a length: an effect of {effect:.2f} standard deviations "
        f"of the paired difference is seen with 80 % power after correction; that nothing is lost can be shown "
        f"{no_loss_from(seeds, study.comparisons)}{claim}"
    )


def no_loss_from(seeds: int, comparisons: int) -> str:
    """Whether so many seeds can show that nothing is lost, or how many can."""
    least = seeds_for_no_loss(comparisons)
    return "too" if seeds >= least else f"from {least} seeds on"
