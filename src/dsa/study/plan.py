"""Every run of a study, before any of them starts: deduplicated, in order, with what cannot apply set apart."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from dsa.analysis.statistics.power import enough, seeds_for_no_loss, seeds_needed, smallest_p, visible_effect
from dsa.build import build_data
from dsa.config import GROUPS, digest, resolved
from dsa.data import DataModule
from dsa.study.applicable import check_indexer, obstacle
from dsa.study.composer import Composer, Layer, stacked
from dsa.study.spec import Study
from dsa.training.plan import Plan, base_of, control_of

IN_ORDER = ("base", "control", "run")  # what stands on what
ELSEWHERE = ("output_dir", "stale")  # typed beside a study's settings, and nothing of what it compares


@dataclass
class PlannedRun:
    """One run: which condition it is, what it is called, and its whole configuration.

    Args:
        kind: base and control are the shared dense runs, run is anything else.
        label: of its condition or control.
        role: base, control or condition.
        context: what its condition changes besides what is compared; empty where all conditions share it.
        template: its configuration, which the seeds share.
        needs: hashes of the dense runs that it stands on.
        steps: optimiser steps of its own, its dense base's not counted.
        reason: why it cannot apply; None if it can. Only runs that can have a name and a folder.
    """

    label: str
    role: str
    kind: str
    seq_len: int
    seed: int
    template: DictConfig = field(repr=False)
    context: str = ""
    study: str = ""
    run_id: str = ""
    config_hash: str = ""
    folder: Path = Path()
    needs: tuple[str, ...] = ()
    reason: str | None = None
    steps: int = 0

    @property
    def cfg(self) -> DictConfig:
        """Its whole configuration."""
        cfg = deepcopy(self.template)
        cfg.seed = self.seed
        return cfg

    @property
    def compared_as(self) -> str:
        """What the analysis takes it for: base, condition, or the control's name."""
        return self.label.split("-")[0] if self.role == "control" else self.role


@dataclass
class StudyPlan:
    """A study with its runs, each (label, length, seed) once; runs of equal configuration have equal hashes."""

    study: Study
    runs: list[PlannedRun]

    @property
    def applicable(self) -> list[PlannedRun]:
        return [run for run in self.runs if run.reason is None]

    @property
    def comparisons(self) -> int:
        """Comparisons with the baseline at one length: what a correction counts."""
        return max(1, len(self.study.conditions) - 1)


def plan_study(study: Study, composer: Composer, data: "DataStore") -> StudyPlan:
    """Plan every run of a study.

    Raises:
        ValueError: a setting is impossible, no run applies, or the seeds could never show anything.
    """
    check_seeds(study)
    runs: list[PlannedRun] = []
    shared: dict[str, tuple[str, ...]] = {}
    checked: set[str] = set()
    several = len({context_of(layer, study, composer.groups) for _, _, layer in points(study, composer.groups)}) > 1
    for seq_len in study.seq_len:
        for label, role, layer in points(study, composer.groups):
            cfg = composer.config({**layer, "seq_len": seq_len, "seed": study.seed[0]})
            with open_dict(cfg):
                cfg.name = study.name
            context = context_of(layer, study, composer.groups) if several else ""
            run = PlannedRun(label, role, "run", seq_len, study.seed[0], cfg, context)
            if label not in checked:
                check_indexer(cfg, label)
                checked.add(label)
            runs += seeds_of(run, study, data, shared)
    out = StudyPlan(study, sorted(runs, key=lambda run: IN_ORDER.index(run.kind)))
    if not any(run.role == "condition" and run.reason is None for run in runs):
        reasons = sorted({run.reason for run in runs if run.reason})
        raise ValueError(f"study {study.name}: no condition applies at any length. {' '.join(reasons[:3])}")
    return out


def points(study: Study, groups: set[str]) -> Iterator[tuple[str, str, Layer]]:
    """Label, role and overrides of every condition, then of the controls: one set for each setting that is varied."""
    contexts: dict[str, Layer] = {}
    for label, layer in study.conditions.items():
        whole = stacked(study.common, layer, groups=groups)
        yield label, "condition", whole
        contexts.setdefault(context_of(whole, study, groups), whole)
    for name, whole in contexts.items():
        around = {key: value for key, value in whole.items() if root(key) not in GROUPS}
        for control in study.controls:
            if control != "dense":
                label = f"{control}-{name}" if len(contexts) > 1 else control
                yield label, "control", around | pattern_of_controls(study) | selector_of_control(study, control)


def pattern_of_controls(study: Study) -> Layer:
    """The pattern that all conditions share; causal where they differ in it."""
    common = {key: value for key, value in study.common.items() if root(key) == "pattern"}
    varied = any(root(key) == "pattern" for layer in study.conditions.values() for key in layer)
    return common or ({"pattern": "causal"} if varied else {})


def selector_of_control(study: Study, control: str) -> Layer:
    """A control at the study's budget; without one, at the pattern's own."""
    budget = study.common.get("selector.k") if study.budget is None else study.budget
    return {"selector": control} | ({} if budget is None else {"selector.k": budget})


def root(key: str) -> str:
    """The group that a key belongs to."""
    return key.split(".")[0]


def context_of(layer: Layer, study: Study, groups: set[str]) -> str:
    """What a condition changes besides what is compared: its dense runs and controls are its own."""
    own = {k: v for k, v in layer.items() if root(k) not in (*GROUPS, "objective") and study.common.get(k) != v}
    return "-".join(str(v) if k in groups else f"{k.split('.')[-1]}{v}" for k, v in own.items())


def seeds_of(one: PlannedRun, study: Study, data: "DataStore", shared: dict[str, tuple[str, ...]]) -> list[PlannedRun]:
    """A condition at one length under every seed, with the dense runs that no earlier condition brought.

    A run has a name, a hash and a folder, or the reason why it cannot apply.
    """
    try:
        module = data.of(one.template)
        reason = obstacle(one.template)
    except ValueError as error:
        module, reason = None, str(error)
    if module is None or reason is not None:
        return [replace(one, seed=seed, reason=reason) for seed in study.seed]
    out: list[PlannedRun] = []
    content = resolved(one.template)
    around = {k: v for k, v in content.items() if k not in (*GROUPS, "objective", "choices", "overridden", "seed")}
    around["data"] = {**content["data"], "seed": None}
    key = digest([around, one.template.choices.get("recipe")])
    for seed in study.seed:
        one.template.seed = seed
        run = replace(one, seed=seed)
        named(run, Plan(one.template, module))
        out.append(run)
        if f"{key}-{seed}" not in shared:
            dense = stands_on(run, module, study)
            shared[f"{key}-{seed}"] = tuple(needed.config_hash for needed in dense)
            out += dense
        run.needs = tuple(h for h in shared[f"{key}-{seed}"] if h != run.config_hash)
    return out


def named(run: PlannedRun, plan: Plan) -> PlannedRun:
    run.run_id, run.config_hash, run.folder, run.study = plan.run_id, plan.config_hash, plan.folder, plan.study
    own = [stage for stage in plan.stages if run.kind == "base" or not has_base(plan.cfg) or stage.name != "dense"]
    run.steps = sum(stage.steps for stage in own)
    return run


def has_base(cfg: DictConfig) -> bool:
    return bool(cfg.recipe.dense.steps and (cfg.recipe.warmup.steps or cfg.recipe.sparse.steps))


def stands_on(run: PlannedRun, module: DataModule, study: Study) -> list[PlannedRun]:
    """The dense base and the dense control of a run."""
    out: list[PlannedRun] = []
    for kind, cfg in (("base", base_of(run.template)), ("control", control_of(run.template))):
        if cfg is None:
            continue
        role = "control" if kind == "control" and "dense" in study.controls else "base"
        label = f"dense-{run.context}" if run.context and role == "control" else "dense"
        dense = PlannedRun(label, role, kind, run.seq_len, run.seed, cfg, run.context)
        dense.needs = tuple(before.config_hash for before in out)
        out.append(named(dense, Plan(cfg, module)))
    return out


class DataStore:
    """Data modules of planned configurations, each prepared once: what a seed draws from is the same for all."""

    def __init__(self) -> None:
        self.known: dict[str, DataModule | ValueError] = {}

    def of(self, cfg: DictConfig) -> DataModule:
        """The data of a configuration, good for its fingerprint alone.

        Raises:
            ValueError: the data cannot give rows of this length.
        """
        key = digest({**resolved(cfg)["data"], "seed": 0})
        if key not in self.known:
            try:
                self.known[key] = build_data(cfg)
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
    comparisons = max(1, len(study.conditions) - 1)
    if study.exploratory or enough(len(study.seed), comparisons):
        return
    least = smallest_p(len(study.seed))
    raise ValueError(
        f"seed: with {len(study.seed)} seeds and {comparisons} comparisons no result could be significant: "
        f"the smallest p is {least:.4f}, corrected {least * comparisons:.3f}. "
        f"Give {seeds_needed(comparisons)} seeds, or exploratory=true to look without a claim."
    )


def outlook(plan: StudyPlan) -> str:
    """What effect the study's seeds can see."""
    seeds = len(plan.study.seed)
    if seeds < 2:
        return "1 seed: differences cannot be told from chance"
    if not enough(seeds, plan.comparisons):
        return f"{seeds} seeds, {plan.comparisons} comparisons a length: too few to show anything, exploratory"
    effect = visible_effect(seeds, plan.comparisons)
    claim = ", exploratory: no claim" if plan.study.exploratory else ""
    return (
        f"{seeds} seeds, {plan.comparisons} comparisons a length: an effect of {effect:.2f} standard deviations "
        f"of the paired difference is seen with 80 % power after correction; that nothing is lost can be shown "
        f"{no_loss_from(seeds, plan.comparisons)}{claim}"
    )


def no_loss_from(seeds: int, comparisons: int) -> str:
    """Whether so many seeds can show that nothing is lost, or how many can."""
    least = seeds_for_no_loss(comparisons)
    return "too" if seeds >= least else f"from {least} seeds on"


def record(plan: StudyPlan) -> dict[str, Any]:
    """The plan as plain data, for study.json."""
    study = plan.study
    return {
        "name": study.name,
        "question": study.question,
        "hypothesis": study.hypothesis,
        "metric": study.metric,
        "baseline": study.baseline,
        "margin": study.margin,
        "controls": list(study.controls),
        "exploratory": study.exploratory,
        "seq_len": study.seq_len,
        "seed": study.seed,
        "conditions": study.conditions,
        "common": {key: value for key, value in study.common.items() if key not in ELSEWHERE},
        "runs": [
            {
                "label": run.label,
                "role": run.role,
                "kind": run.compared_as,
                "context": run.context,
                "seq_len": run.seq_len,
                "seed": run.seed,
                "run_id": run.run_id or None,
                "config_hash": run.config_hash or None,
                "study": run.study or None,
                "not_applicable": run.reason,
            }
            for run in plan.runs
        ],
    }
