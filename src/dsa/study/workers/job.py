"""What a worker does: one job, exactly as it was written down, if nobody else does it."""

import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from dsa.artifacts.digest import digest
from dsa.artifacts.store import Store
from dsa.build import build_data
from dsa.data import DataModule
from dsa.graph import Graph, Need, graph_of
from dsa.judging import threads
from dsa.judging.models import Models
from dsa.judging.world import first_process
from dsa.signals import causes, heeded
from dsa.spec import Spec, spec_from
from dsa.study.workers import failures
from dsa.study.workers.claim import CLAIM, DEATHS, claimed, further, read
from dsa.study.workers.failures import Failure
from dsa.study.workers.places import JOBS, LOG
from dsa.training.base import make_base
from dsa.training.cohort import make_indexers
from dsa.training.dashboard import Dashboard
from dsa.training.errors import RunFailed, category, reason
from dsa.training.execute import execute
from dsa.training.failures import failures_kept, keep_failure
from dsa.training.joint import make_joint
from dsa.training.rehearsal import rehearse_indexer
from dsa.training.run import Run
from dsa.training.variants import VariantFault
from dsa.training.work import shared

MODULES = 4  # data modules that a process keeps

logger = logging.getLogger(__name__)


class TimedOut(Exception):
    """An artifact or a run took longer than the study allows."""


@heeded()
def work(path: Path) -> Failure | None:
    """Do a job; why it failed, which the folders of its runs and artifacts tell too unless they could not be written.

    Nothing happens if somebody works on it, in this sweep or another, or the study was stopped.
    """
    job = Work(path)
    if job.stopped():
        return None
    if not first_process():  # of a run on several devices: the first one holds the claim and writes
        return job.attempt()
    with claimed(path.parent, job.further, job.content["deaths"]) as mine:
        if not mine:
            return None
        with terminal_to(path.parent / LOG):
            failure = job.crashing() or job.attempt()
    if failure is not None and job.stop is not None:
        job.stop.touch()
    return failure


class Work:
    """A job as its file describes it."""

    def __init__(self, path: Path) -> None:
        self.folder, self.content = path.parent, read(path)
        self.outputs = path.parents[2]
        check_place(path, self.content)
        self.kind, self.minutes = self.content["kind"], self.content["timeout_minutes"]
        self.stop = None if self.content["stop"] is None else Path(self.content["stop"])
        self.models: Models | None = None

    def stopped(self) -> bool:
        """Whether a run of the sweep failed that was to stop it."""
        return self.stop is not None and self.stop.exists()

    def further(self, since: float) -> bool:
        """Whether it got any further since a moment: saved a checkpoint, or ended a run."""
        return further(self.outputs, self.content["traces"], since)

    def crashing(self) -> Failure | None:
        """The reason to leave the job alone, which everything in it then fails with: it took every process along."""
        deaths = read(self.folder / CLAIM).get("deaths", 0)
        if deaths < DEATHS:
            return None
        failure = failures.died(deaths)
        for _, need in self.wanted():
            failures.keep(self.outputs, need, failure)
        for entry in self.content["runs"]:
            run = run_of(entry)
            failures.fail(run.spec, run.graph, run.folder, failure)
        return failure

    def attempt(self) -> Failure | None:
        """Make its artifacts, then carry out its runs; the first failure."""
        if self.content["threads"] is not None:
            threads.use(self.content["threads"], "the study was begun")
        failure = self.make()
        for entry in self.content["runs"]:
            if self.stopped():
                break
            failure = self.carry_out(entry) or failure
            if failure is not None and self.stop is not None:
                self.stop.touch()
        return failure

    def wanted(self) -> list[tuple[Spec, Need]]:
        """Its artifacts, each with the spec that describes it."""
        out = []
        for entry in self.content["makes"]:
            spec = spec_from(entry["config"])
            out.append((spec, need_of(self.kind, graph_of(spec, data_of(spec).fingerprint))))
        return out

    def make(self) -> Failure | None:
        """Make its artifacts; why that failed, which is then told beside the job."""
        if not self.content["makes"]:
            return None
        wishes: list[tuple[Spec, Need]] = []
        try:
            with time_limit(self.minutes):
                wishes = self.wanted()
                failed = self.make_all(wishes)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            print(traceback.format_exc())
            late = timed_out(error)
            failure = Failure("timeout", str(late)) if late else Failure(category(error), reason(error))
            for _, need in wishes:
                failures.keep(self.outputs, need, failure)
            return failure
        for _, need in wishes:
            if need.hash in failed:
                failures.keep(self.outputs, need, failed[need.hash])
        return next(iter(failed.values()), None)

    def make_all(self, wishes: list[tuple[Spec, Need]]) -> dict[str, Failure]:
        """Make artifacts of one kind; the reasons of those that failed alone, by hash."""
        spec, need = wishes[0]
        store, data = Store(spec.outputs, spec.stale), data_of(spec)
        if self.kind == "base":
            make_base(store, spec, need, data, shared(spec, need, "base"))
        elif self.kind == "control":
            make_joint(store, spec, need, data, shared(spec, need, "control"))
        else:
            return self.make_cohort(store, wishes, data)
        return {}

    def make_cohort(self, store: Store, wishes: list[tuple[Spec, Need]], data: DataModule) -> dict[str, Failure]:
        """Train indexers side by side, without those whose class answers wrongly."""
        failed = {}
        for spec, need in wishes:
            try:
                rehearse_indexer(spec)
            except VariantFault as error:
                failed[need.hash] = Failure(category(error), str(error))
        good = [wish for wish in wishes if wish[1].hash not in failed]
        diverged = make_indexers(store, good, data, self.cohort_dashboard(good)) if good else {}
        return failed | {name: Failure("nan", reason) for name, reason in diverged.items()}

    def cohort_dashboard(self, wishes: list[tuple[Spec, Need]]) -> Dashboard:
        """A cohort is one run on a dashboard, with a curve for each indexer; its files stay with the job."""
        spec, need = wishes[0]
        members = digest(sorted(wish.hash for _, wish in wishes))
        name = f"cohort-{need.needs[0].name.removeprefix('dense-')}-{members}"
        return Dashboard(spec, name, self.content["group"], "cohort", place=self.folder)

    def carry_out(self, entry: dict[str, Any]) -> Failure | None:
        """One run, from whatever is there to its result; why it failed."""
        spec = spec_from(entry["config"])
        run = None
        try:
            with time_limit(self.minutes):
                with failures_kept(spec, None):
                    run = run_of(entry)
                failure = failures.failure_of(spec, run.graph)
                if failure is not None:
                    failures.fail(spec, run.graph, run.folder, failure)
                    return failure
                execute(run, self.models_of(run), wait=True, timed=run.graph.joint is not None)
        except (RunFailed, TimedOut, OSError) as error:
            late = timed_out(error)
            if late is not None:
                keep_failure(spec, run, "timeout", str(late), "")
                return Failure("timeout", str(late))
            return Failure(error.kind if isinstance(error, RunFailed) else category(error), reason(error))
        return None

    def models_of(self, run: Run) -> Models:
        """What puts models together, for all runs of the job: each base is read once."""
        assert run.data is not None
        if self.models is None or self.models.vocab_size != run.data.vocab_size:
            self.models = Models(run.store, run.data.vocab_size)
        return self.models


def check_place(path: Path, content: dict[str, Any]) -> None:
    """Refuse a job's file that is none, or that would make or write something outside the folder it lies in.

    Raises:
        ValueError: it lies elsewhere than in `.jobs` of its runs' output_dir, or names folders outside that.
    """
    outputs = path.resolve().parents[2]
    if path.parent.parent.name != JOBS or "kind" not in content:
        raise ValueError(f"planned = {path}: no job of a sweep, those lie in <output_dir>/{JOBS}/<job>.")
    named = [Path(entry["config"]["output_dir"]) for entry in (*content["makes"], *content["runs"])]
    if content["stop"] is not None:
        named.append(Path(content["stop"]).parents[1])
    for place in named:
        if place.resolve() != outputs:
            raise ValueError(f"planned = {path}: this job would write to {place}; it lies in {outputs}.")


def run_of(entry: dict[str, Any]) -> Run:
    """A run as a job's file describes it."""
    spec = spec_from(entry["config"])
    return Run(spec, data_of(spec), entry["label"], entry["group"], entry["silent"])


def need_of(kind: str, graph: Graph) -> Need:
    """The artifact that a job of this kind makes for a run."""
    need = {"base": graph.base, "cohort": graph.indexers, "control": graph.control}[kind]
    assert need is not None
    return need


def timed_out(error: BaseException | None) -> TimedOut | None:
    """The time limit behind an error, if that was its cause."""
    return next((cause for cause in causes(error) if isinstance(cause, TimedOut)), None)


modules: dict[str, DataModule] = {}


def data_of(spec: Spec) -> DataModule:
    """The data of a spec, prepared once for the runs of one process that follow each other."""
    key = digest(spec.data.node, 32)
    if key not in modules:
        while len(modules) >= MODULES:
            del modules[next(iter(modules))]
        modules[key] = build_data(spec)
    return modules[key]


@contextmanager
def terminal_to(path: Path) -> Iterator[None]:
    """What a job prints goes to its log."""
    with path.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        yield


@contextmanager
def time_limit(minutes: float | None) -> Iterator[None]:
    """Raise TimedOut after some minutes; in a thread other than the first nothing can, and nothing does."""
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimedOut(f"timeout_minutes = {minutes:g}: the run took longer.")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
