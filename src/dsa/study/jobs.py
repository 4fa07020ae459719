"""What is missing for planned runs, as jobs: bases, cohorts of indexers, joint trainings, batches of judgements.

A job has a folder below <output_dir>/.jobs that all studies share: two that need one base make it once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dsa.artifacts.atomic import write_json
from dsa.artifacts.files import RESULT
from dsa.artifacts.store import LAST, PARTIAL, PLACES
from dsa.graph import Need
from dsa.study.estimate import predicted
from dsa.study.planned import PlannedRun
from dsa.study.states import OPEN, Results, Shelf
from dsa.study.workers.places import COHORTS, JOBS

Kind = Literal["base", "cohort", "control", "joint", "judge"]
IN_ORDER: tuple[Kind, ...] = ("base", "cohort", "control", "joint", "judge")
"""What stands on what."""


@dataclass(frozen=True)
class Job:
    """Work for one process.

    Args:
        key: what makes its folder's name, beside the kind: mostly the hash of the artifact that it is about.
        makes: artifacts, each with a run that describes it.
        runs: carried out whole, one after the other.
        deaths: of processes at the same work, before it was taken apart.
    """

    kind: Kind
    key: str
    makes: tuple[tuple[PlannedRun, Need], ...] = ()
    runs: tuple[PlannedRun, ...] = ()
    deaths: int = 0
    traces: tuple[str, ...] = field(default=(), repr=False)

    @property
    def first(self) -> PlannedRun:
        return self.makes[0][0] if self.makes else self.runs[0]

    @property
    def folder(self) -> Path:
        return self.first.spec.outputs / JOBS / f"{self.kind}-{self.key}"

    @property
    def title(self) -> str:
        """What it does, for people."""
        if self.kind in ("base", "control"):
            return f"{self.kind} {self.makes[0][1].name}"
        if self.kind == "cohort":
            members = ", ".join(dict.fromkeys(run.spec.indexer.option for run, _ in self.makes))
            seed = f", seed {self.first.spec.seed}" if self.first.spec.given else ""  # a model that is given has none
            return f"indexers of {self.makes[0][1].needs[0].name}{seed}: {members}"
        return f"{'joint training' if self.kind == 'joint' else 'judging'}: {len(self.runs)} runs"

    @property
    def predicted(self) -> float:
        """Seconds that it takes on two cores, about."""
        return predicted(self)

    def parts(self, deaths: int) -> "list[Job]":
        """The same work, each member by itself: where a process died, only the guilty one dies again."""
        if self.kind == "cohort" and len(self.makes) > 1:
            alone = [(make,) for make in self.makes]
            return [replace(self, key=key_of_cohort(self.key, m), makes=m, deaths=deaths) for m in alone]
        if self.kind == "judge" and len(self.runs) > 1:
            return [judging(self.key, (run,), deaths) for run in self.runs]
        return [self]

    def write(
        self, study: str, groups: dict[str, str], silent: set[tuple[str, str]], timeout: float | None,
        stop: Path | None, threads: int | None = None,
    ) -> Path:  # fmt: skip
        """Put it into its folder, by the name of the sweep; returns the file that a worker reads.

        Args:
            groups: of each study's runs on a dashboard.
            silent: runs that no dashboard hears of.
            timeout: of each of its artifacts and runs [minutes].
            stop: a marker that a failed run leaves to keep the others from starting; None lets them start.
            threads: that compute it; None leaves that to whatever starts the worker.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{study}.json"
        write_json(path, {
            "kind": self.kind,
            "group": groups.get(self.first.study, self.first.study),
            "timeout_minutes": timeout,
            "stop": None if stop is None else str(stop.resolve()),
            "threads": threads,
            "deaths": self.deaths,
            "traces": list(self.traces),
            "predicted": self.predicted,
            "makes": [{"hash": need.hash, "name": need.name, "config": run.spec.content} for run, need in self.makes],
            "runs": [of_a_run(run, groups, run.key in silent) for run in self.runs],
        })  # fmt: skip
        return path.resolve()


def of_a_run(run: PlannedRun, groups: dict[str, str], silent: bool) -> dict[str, Any]:
    """What a worker is told of a run."""
    named = {"study": run.study, "run_id": run.run_id, "label": run.label}
    return named | {"group": groups.get(run.study, run.study), "silent": silent, "config": run.spec.content}


class ToDo:
    """What is left of some runs.

    Args:
        shelf: the artifacts that are there.
        results: the results that are there.
    """

    def __init__(self, shelf: Shelf, results: Results) -> None:
        self.shelf, self.results = shelf, results

    def open(self, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
        """Runs that have no result yet; one that failed has."""
        return [run for run in runs if self.results.state(run) in OPEN]

    def jobs(self, kind: Kind, runs: Iterable[PlannedRun]) -> list[Job]:
        """The jobs of one kind that are left."""
        return self.jobs_of(kind, self.open(runs))

    def jobs_of(self, kind: Kind, runs: list[PlannedRun]) -> list[Job]:
        """The jobs of one kind that runs without a result need."""
        makers = {"base": self.bases, "cohort": self.cohorts, "control": self.controls,
                  "joint": self.joints, "judge": self.judges}  # fmt: skip
        return makers[kind](runs)

    def bases(self, runs: list[PlannedRun]) -> list[Job]:
        needs = {run.graph.base.hash: (run, run.graph.base) for run in runs if run.graph.base is not None}
        return [
            Job("base", key, makes=((run, need),), traces=(checkpoint(need),))
            for key, (run, need) in needs.items()
            if not self.shelf.has(need)
        ]

    def cohorts(self, runs: list[PlannedRun]) -> list[Job]:
        """All indexers of a base that are missing, at once where their warm-ups can be one pass over the same rows."""
        members: dict[tuple[str, str], dict[str, tuple[PlannedRun, Need]]] = {}
        for run in runs:
            need = run.graph.indexers
            if need is not None and not self.shelf.has(need):
                members.setdefault((need.lesson, need.schedule), {}).setdefault(need.hash, (run, need))
        return [
            Job(
                "cohort",
                key_of_cohort(f"{lesson}-{schedule}", tuple(wishes.values())),
                makes=tuple(wishes.values()),
                traces=(f"{COHORTS}/{lesson}-*/{LAST}",),
            )
            for (lesson, schedule), wishes in members.items()
        ]

    def controls(self, runs: list[PlannedRun]) -> list[Job]:
        """Joint training with dense attention, and the runs that are just that."""
        needs: dict[str, tuple[PlannedRun, Need]] = {}
        own: dict[str, list[PlannedRun]] = {}
        for run in runs:
            need = run.graph.control
            if need is None or self.shelf.has(need):
                continue
            if run.graph.joint == need:
                own.setdefault(need.hash, []).append(run)
            elif not run.spec.dense_control:
                continue
            needs.setdefault(need.hash, (run, need))
        return [
            Job("control", key, makes=((run, need),), runs=tuple(own.get(key, ())), traces=(checkpoint(need),))
            for key, (run, need) in needs.items()
        ]

    def joints(self, runs: list[PlannedRun]) -> list[Job]:
        """Runs whose joint training is missing; those that share one, as formats do, together."""
        groups: dict[str, list[PlannedRun]] = {}
        for run in runs:
            joint = run.graph.joint
            if joint is not None and self.trains(run):
                groups.setdefault(joint.hash, []).append(run)
        return [
            Job("joint", key, runs=tuple(own), traces=(checkpoint(own[0].graph.joint), *traces_of_runs(own)))
            for key, own in groups.items()
        ]

    def trains(self, run: PlannedRun) -> bool:
        """Whether its own joint training is missing; a control's is no run's own."""
        joint, control = run.graph.joint, run.graph.control
        return joint is not None and joint != control and not self.shelf.has(joint)

    def judges(self, runs: list[PlannedRun]) -> list[Job]:
        """Runs that need no joint training, or had theirs: all of one base in one process, which loads it once; of a
        given model those of one draw."""
        groups: dict[str, list[PlannedRun]] = {}
        for run in runs:
            control = run.graph.control
            waits = control is not None and run.graph.joint == control and not self.shelf.has(control)
            if self.trains(run) or waits:
                continue
            groups.setdefault(run.graph.place, []).append(run)
        return [judging(place, tuple(own)) for place, own in groups.items()]


def key_of_cohort(shared: str, makes: tuple[tuple[PlannedRun, Need], ...]) -> str:
    """The hashes of lesson and schedule, and that of an indexer which is trained alone."""
    return shared if len(makes) > 1 else f"{shared}-{makes[0][1].hash}"


def judging(place: str, runs: tuple[PlannedRun, ...], deaths: int = 0) -> Job:
    """Runs judged on one base, by the hash of their place and by that of a run which is judged alone."""
    key = place if len(runs) > 1 else f"{place}-{runs[0].study}-{runs[0].hash}"
    return Job("judge", key, runs=runs, deaths=deaths, traces=traces_of_runs(runs))


def checkpoint(need: Need | None) -> str:
    """Where an artifact's training saves how far it came, below the output folder."""
    assert need is not None
    return f"{PLACES[need.kind]}/*-{need.hash}{PARTIAL}/{LAST}"


def traces_of_runs(runs: Iterable[PlannedRun]) -> tuple[str, ...]:
    """Results: each tells that a job got further."""
    return tuple(f"{run.study}/{run.run_id}/{RESULT}" for run in runs)
