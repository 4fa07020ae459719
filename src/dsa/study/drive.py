"""A planned study carried through: what is left is launched, in order, until nothing is missing."""

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from dsa.artifacts.atomic import write_json
from dsa.artifacts.files import RESULT, STUDY, VERDICT
from dsa.study.finalists import choose
from dsa.study.jobs import IN_ORDER, Job, Kind, ToDo
from dsa.study.options import Options
from dsa.study.outcome import Outcome
from dsa.study.plan import StudyPlan
from dsa.study.planned import PlannedRun
from dsa.study.progress import Watch
from dsa.study.record import record
from dsa.study.states import Results, Shelf
from dsa.study.workers import failures
from dsa.study.workers.claim import CLAIM, DEATHS, deaths_after, forget, further, given_up, read, working
from dsa.study.workers.failures import Failure
from dsa.study.workers.places import JOBS, STOP
from dsa.study.workers.queue import QUEUED, queued
from dsa.study.workers.submitit_queue import SubmititQueue
from dsa.training.errors import category

Dispatch = Callable[[list[Job], list[Path]], list[Failure | None]]
"""Does jobs, given their files; answers with why each failed. It may raise, or leave some undone."""

POLL = 1.0  # seconds between looks at jobs that somebody else does


class Drive:
    """One pass over one or several studies.

    Args:
        outputs: folder of all studies.
        dispatch: does jobs; a launcher of Hydra's, or anything else that does.

    `threads` compute each job, so that conditions differ by no rounding; None leaves their number to the launcher.
    """

    def __init__(self, plans: list[StudyPlan], outputs: Path, options: Options, dispatch: Dispatch) -> None:
        self.plans, self.outputs, self.options, self.dispatch = plans, outputs, options, dispatch
        self.stale = plans[0].runs[0].spec.stale
        self.shelf, self.results = Shelf(outputs, self.stale), Results(self.stale)
        self.todo = ToDo(self.shelf, self.results)
        self.unwritten: dict[tuple[str, str], Failure] = {}  # by run, where its folder could not take it
        self.launcher_error: str | None = None
        self.silent: set[tuple[str, str]] = set()
        self.groups: dict[str, str] = {}  # of each study on a dashboard: its name and the day it began
        self.name = plans[0].study.name
        self.threads: int | None = None

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run once."""
        return list({run.key: run for plan in self.plans for run in plan.applicable}.values())

    @property
    def admitted(self) -> list[str]:
        """Packages of the user's own whose classes the runs may name: what ends the studies gets them from here."""
        return sorted({package for run in self.runs for package in run.spec.allow_targets})

    def __call__(self) -> Outcome:
        """Do what is left, then say what became of everything.

        Raises:
            OSError: the output folder cannot be written.
        """
        self.begin()
        runs = self.runs
        metrics = {plan.study.name: plan.study.metric for plan in self.plans}
        with Watch(self.todo, metrics) as watch:
            watch.add(runs)
            self.carry(runs)
            if self.choose_finalists():
                more = self.runs[len(runs) :]
                watch.add(more)
                self.carry(more)
        outcome = self.outcome()
        if not outcome.missing:
            for path in (self.outputs / JOBS).glob(f"*/{self.name}.json"):
                forget(path.parent)  # a process died there, and its work was done under another name
        return outcome

    def begin(self) -> None:
        """Write down what is planned; forget failures if they are to be tried again."""
        self.choose_finalists()
        self.write_plans()
        if self.options.retry_failed:
            for run in self.runs:
                self.forget_failure(run)

    def choose_finalists(self) -> bool:
        """Plan the confirmation of every study whose selection is over; whether one was planned now."""
        chosen = False
        for plan in self.plans:
            labels = choose(plan, self.results) if plan.to_choose else None
            if labels:
                plan.confirm(labels)
                chosen = True
        if chosen and self.groups:
            self.write_plans()
        return chosen

    def write_plans(self) -> None:
        """study.json beside the runs: question, conditions, and which run is which."""
        self.silent = self.beyond()
        for plan in self.plans:
            folder = self.outputs / plan.study.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STOP).unlink(missing_ok=True)
            created = read(folder / STUDY).get("created", f"{date.today()}")
            self.groups[plan.study.name] = f"{plan.study.name} {created}"
            write_json(folder / STUDY, record(plan) | {"created": created, "threads": self.threads})

    def begun_with(self) -> int | None:
        """How many threads computed what is there of the study; None if nothing is that tells conditions apart."""
        for run in self.runs:
            if any(need is not None and self.shelf.has(need) for need in (run.graph.indexers, run.graph.joint)):
                count: int | None = read(self.outputs / self.name / STUDY).get("threads")
                return count
        return None

    def forget_failure(self, run: PlannedRun) -> None:
        """Let a failed run and what it needs be tried again."""
        failures.forget(self.outputs, run.graph)
        if self.results.state(run) == "failed":
            (run.folder / RESULT).unlink(missing_ok=True)

    def carry(self, runs: list[PlannedRun]) -> None:
        """Do all that is left of some runs, what others stand on first."""
        for kind in IN_ORDER:
            self.carry_through(kind, runs)

    def carry_through(self, kind: Kind, runs: list[PlannedRun]) -> None:
        """Launch jobs of one kind; then once more what is missing, since a dying worker can take a whole batch along.

        What was under way when a worker died is launched alone and last, each member by itself, so that only the
        guilty one dies again, and where it takes the whole sweep along, the others are done before.
        """
        for _ in range(2):
            self.launch([job for job in self.left(kind, runs) if not self.deaths(job)])
            self.await_others(kind, runs)
        suspects = [job for job in self.left(kind, runs) if self.deaths(job)]
        for job in suspects:
            for part in job.parts(self.deaths(job)):
                self.launch([part])
        self.await_others(kind, runs)
        for job in self.left(kind, runs):
            for part in job.parts(self.deaths(job)):
                if max(self.deaths(part), part.deaths) >= DEATHS and not self.stopped():
                    self.give_up(part)
        for job in suspects:
            forget(job.folder)
        self.fail_dependents(runs)

    def left(self, kind: Kind, runs: list[PlannedRun]) -> list[Job]:
        """Jobs that nobody has done, failed at, or works on."""
        return [job for job in self.jobs(kind, runs) if not self.under_way(job)]

    def jobs(self, kind: Kind, runs: list[PlannedRun]) -> list[Job]:
        """Jobs that are not done; what failed is none."""
        self.shelf.refresh()
        self.fail_dependents(runs)
        return self.todo.jobs(kind, [run for run in runs if run.key not in self.unwritten])

    def under_way(self, job: Job) -> bool:
        return working(job.folder) or queued(job.folder)

    def deaths(self, job: Job) -> int:
        """Processes that died at a job in a row without getting any further."""
        claim = read(job.folder / CLAIM) if given_up(job.folder) else {}
        if not claim:
            return 0
        return deaths_after(claim, lambda since: further(self.outputs, list(job.traces), since))

    def launch(self, jobs: list[Job]) -> None:
        """Hand jobs to the launcher; whatever it says, the folders are what counts."""
        ready, files = [], []
        for job in [] if self.stopped() else jobs:
            try:
                files.append(self.file(job))
                ready.append(job)
            except OSError as error:
                self.not_written(job, Failure(category(error), f"cannot write {job.folder} ({error})"))
        if not ready:
            return
        try:
            answers = self.dispatch(ready, files)
        except (KeyboardInterrupt, SystemExit):
            for job in ready:  # workers that the launcher took along did not die of what they did
                forget(job.folder)
            raise
        except Exception as error:  # a launcher gives up on its whole batch when one worker dies
            answers = [None] * len(ready)
            self.launcher_error = f"{type(error).__name__}: {error}"
        for job, answer in zip(ready, answers, strict=True):
            if answer is not None and not self.stopped():
                self.not_written(job, answer)

    def not_written(self, job: Job, failure: Failure) -> None:
        """Remember the failure of what no folder tells of, though its job came to an end."""
        self.shelf.refresh()
        lost = {run.key: run for run in self.todo.open(job.runs)}
        for _, need in job.makes:
            if not self.shelf.has(need) and not failures.place(self.outputs, need).exists():
                lost |= {run.key: run for run in self.runs if need in failures.needed(run.graph, control=True)}
        self.unwritten |= {key: failure for key in lost if key not in self.unwritten}

    def file(self, job: Job) -> Path:
        """The file from which a worker does a job."""
        return job.write(self.name, self.groups, self.silent, self.options.timeout_minutes, self.marker(), self.threads)

    def beyond(self) -> set[tuple[str, str]]:
        """Judged runs that no dashboard hears of: those beyond the number that a study may have there."""
        out: set[tuple[str, str]] = set()
        for plan in self.plans:
            judged = [run for run in plan.applicable if run.judge == "swap"]
            most = judged[0].spec.logger.node.get("judgement_runs", 500) if judged else 0
            out |= {run.key for run in judged[most:]}
        return out

    def await_others(self, kind: Kind, runs: list[PlannedRun]) -> None:
        """Wait for jobs that another sweep does, of this study or of another, until they are done or given up."""
        while not self.stopped() and any(self.under_way(job) for job in self.jobs(kind, runs)):
            time.sleep(POLL)

    def give_up(self, job: Job) -> None:
        """Record that a job's process died again and again."""
        failure = failures.died(DEATHS)
        for run, need in job.makes:
            try:
                failures.keep(self.outputs, need, failure)
            except OSError:
                self.unwritten[run.key] = failure
        for run in job.runs:
            self.fail(run, failure)
        forget(job.folder)

    def fail_dependents(self, runs: list[PlannedRun]) -> None:
        """Fail every run whose base, indexers or control could not be made."""
        told = failures.told(self.outputs)
        for run in self.todo.open(runs) if told else ():
            failure = failures.failure_of(run.spec, run.graph)
            if failure is not None and run.key not in self.unwritten:
                self.fail(run, failure)

    def fail(self, run: PlannedRun, failure: Failure) -> None:
        """Record a failure that the run could not record itself."""
        try:
            failures.fail(run.spec, run.graph, run.folder, failure)
        except OSError:
            self.unwritten[run.key] = failure

    def marker(self) -> Path | None:
        return self.outputs / self.name / STOP if self.options.on_error == "stop" else None

    def stopped(self) -> bool:
        marker = self.marker()
        return marker is not None and marker.exists()

    def submit(self, queue: SubmititQueue) -> list[str]:
        """Hand what is left to a scheduler and return: bases first, then what stands on them; the jobs' ids.

        A last job, which begins when all have ended, ends the studies; it too is submitted only once.
        """
        self.begin()
        before: list[str] = []  # jobs of this sweep and of others that still have some of this work
        handed: list[str] = []
        for kind in IN_ORDER:
            jobs = self.jobs(kind, self.runs)
            left = [job for job in jobs if not self.under_way(job)]
            if left:
                handed += [str(job.job_id) for job in queue.submit([self.file(job) for job in left], before)]
            before += [read(job.folder / QUEUED)["job_id"] for job in jobs if queued(job.folder)]
        folders = [self.outputs / plan.study.name for plan in self.plans]
        if handed or not all(queued(folder) or (folder / VERDICT).exists() for folder in folders):
            handed.append(queue.submit_conclusion(folders, self.options.timing, self.admitted, before))
        return handed

    def outcome(self) -> Outcome:
        out = Outcome(launcher_error=self.launcher_error)
        for run in self.runs:
            state = self.results.state(run)
            if state == "done":
                out.done.append(run)
            elif run.key in self.unwritten:
                out.failed.append((run, *self.unwritten[run.key]))
            elif state == "failed":
                result = self.results.of(run.folder)
                error = (result.error if result is not None else None) or {}
                out.failed.append((run, error.get("category", "error"), error.get("reason", "")))
            else:
                out.missing.append(run)
        return out
