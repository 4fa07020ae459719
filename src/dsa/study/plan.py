"""Every run of a study, before any of them starts: deduplicated, with what cannot apply set apart."""

from dataclasses import dataclass, field

from dsa.artifacts.digest import digest
from dsa.build import build_data
from dsa.data import DataModule
from dsa.spec import Spec
from dsa.study.applicable import check_indexer, fault_of, obstacle
from dsa.study.composer import Composer, Plain
from dsa.study.layers import settings_of
from dsa.study.outlook import check_seeds
from dsa.study.planned import PlannedRun, Point
from dsa.study.question import Study
from dsa.study.seeds import Template, judged_only
from dsa.training.settings import check_settings

APART = 1000  # what is added to a seed for the indexers of a replicate
SELECTION, CONFIRMATION = "selection", "confirmation"


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
    several = len({context for _, _, context, _ in layers}) > 1
    points = []
    for seq_len in study.seq_len:
        for label, role, context, layer in layers:
            cfg = composer.config({**layer, "seq_len": seq_len, "seed": study.seed[0]})
            cfg |= {"name": study.name, "judge": "val"}
            if study.indexer_seed:
                cfg["indexer_seed"] = study.indexer_seed[0]
            points.append(point_of(label, role, seq_len, context if several else "", cfg, study, data, checked))
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
