"""A planned study carried through: what is left is launched, in order, until nothing is missing."""

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from dsa.study.claim import CLAIM, deaths_after, read, write
from dsa.study.job import STOP, write_job
from dsa.study.options import Options
from dsa.study.outcome import Outcome
from dsa.study.plan import IN_ORDER, PlannedRun, StudyPlan, record
from dsa.study.progress import Watch
from dsa.study.queue import QUEUED, queued
from dsa.study.store import STUDY, Finished, forget_failure, gather, link, sound, state, trained_elsewhere
from dsa.study.submitit_queue import SubmititQueue
from dsa.training.plan import Plan
from dsa.training.run import keep_failure

Dispatch = Callable[[list[PlannedRun], list[Path]], list[str | None]]
"""Trains runs, given their files; answers with the reason of each that failed. It may raise, or leave runs undone."""

LEFT = ("missing", "interrupted", "stale")  # states of runs that somebody has to train
POLL = 1.0  # seconds between looks at runs that somebody else trains


class Drive:
    """One pass over one or several studies.

    Args:
        outputs: folder of all studies.
        dispatch: trains runs; a launcher of Hydra's, or anything else that does.
    """

    def __init__(self, plans: list[StudyPlan], outputs: Path, options: Options, dispatch: Dispatch) -> None:
        self.plans, self.outputs, self.options, self.dispatch = plans, outputs, options, dispatch
        self.runs = [run for plan in plans for run in plan.applicable]
        self.first: dict[str, PlannedRun] = {}
        for run in self.runs:
            self.first.setdefault(run.config_hash, run)
        self.stale = self.runs[0].template.stale
        self.allow_targets = sorted({package for run in self.runs for package in run.template.allow_targets})
        self.unwritten: dict[str, str] = {}  # hash -> reason, where the run folder could not take it
        self.launcher_error: str | None = None
        self.linked = 0
        self.groups: dict[str, str] = {}  # of each study on a dashboard: its name and the day it began

    @property
    def unique(self) -> list[PlannedRun]:
        """Every run once, in the order in which they are trained."""
        return sorted(self.first.values(), key=lambda run: IN_ORDER.index(run.kind))

    def state(self, run: PlannedRun) -> str:
        return state(run.folder, self.stale, self.allow_targets)

    def __call__(self) -> Outcome:
        """Train what is left, then say what became of everything.

        Raises:
            OSError: the output folder cannot be written.
        """
        self.write_plans()
        self.link_finished()
        if self.options.retry_failed:
            self.forget_failures()
        left = [run for run in self.unique if self.state(run) not in ("done", "failed")]
        metrics = {plan.study.name: plan.study.metric for plan in self.plans}
        with Watch(left, metrics, len(self.first) - len(left)):
            for kind in IN_ORDER:
                self.carry_through([run for run in left if run.kind == kind])
        for plan in self.plans:
            gather(self.outputs / plan.study.name, self.stale, self.allow_targets)
        return self.outcome()

    def submit(self, queue: SubmititQueue) -> list[str]:
        """Hand what is left to a scheduler and return: dense bases first, then what stands on them; the jobs' ids.

        A last job, which begins when all have ended, ends the studies; it too is submitted only once.
        """
        self.write_plans()
        self.link_finished()
        if self.options.retry_failed:
            self.forget_failures()
        from dsa.analysis.files import VERDICT  # late: a plan needs no statistics

        before: list[str] = []  # jobs of this sweep and of others that still have some of these runs
        handed: list[str] = []
        for kind in IN_ORDER:
            runs = [run for run in self.unique if run.kind == kind]
            left = self.open(runs)
            if left:
                handed += [str(job.job_id) for job in queue.submit([self.file(run) for run in left], before)]
            before += [read(run.folder / QUEUED)["job_id"] for run in runs if self.state(run) == "queued"]
        folders = [self.outputs / plan.study.name for plan in self.plans]
        if handed or not all(queued(folder) or (folder / VERDICT).exists() for folder in folders):
            ending = queue.submit_conclusion(folders, self.options.timing, self.stale, self.allow_targets, before)
            handed.append(ending)
        return handed

    def forget_failures(self) -> None:
        """Let failed runs be tried again."""
        for run in self.unique:
            if self.state(run) == "failed":
                forget_failure(run.folder)

    def write_plans(self) -> None:
        """study.json beside the runs: question, conditions, and which run is which."""
        for plan in self.plans:
            folder = self.outputs / plan.study.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STOP).unlink(missing_ok=True)
            created = read(folder / STUDY).get("created", f"{date.today()}")
            self.groups[plan.study.name] = f"{plan.study.name} {created}"
            write(folder / STUDY, record(plan) | {"created": created})

    def link_finished(self) -> None:
        """Take runs over that any other study has finished."""
        known = Finished(self.outputs, self.allow_targets)
        for run in self.unique:
            if run.kind == "run" and self.state(run) not in ("done", "running"):
                source = known.elsewhere(run.config_hash, run.folder, self.stale)
                if source is not None:
                    link(source, run.folder, run.study)
                    self.linked += 1

    def carry_through(self, runs: list[PlannedRun]) -> None:
        """Launch runs of one kind; then once more what is missing, since a dying worker can take a whole batch along.

        What was under way when a worker died is launched alone and last, so that only the guilty one dies again, and
        where it takes the whole sweep along, the others are done before.
        """
        runs = [run for run in runs if not self.base_failed(run)]
        for _ in range(2):
            self.launch([run for run in self.open(runs) if not self.died_at(run)])
            self.await_others(runs)
        for run in self.open(runs):
            self.launch([run])
        self.await_others(runs)
        for run in self.open(runs):
            if not self.stopped(run) and run.config_hash not in self.unwritten:
                self.fail(run, "killed", "its process died twice without a word: killed from outside, or it crashed.")

    def open(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Those that nobody has finished, failed at, or works on, in any study."""
        self.link_finished()
        return [run for run in runs if self.state(run) in LEFT and not self.lent(run)]

    def died_at(self, run: PlannedRun) -> bool:
        """Whether a process died at this run without getting any further."""
        claim = read(run.folder / CLAIM)
        return bool(claim) and deaths_after(claim, run.folder, requeued=False) > 0

    def launch(self, runs: list[PlannedRun]) -> None:
        """Hand runs to the launcher; whatever it says, the run folders are what counts."""
        runs = [run for run in runs if not self.stopped(run) and run.config_hash not in self.unwritten]
        ready, files = [], []
        for run in runs:
            try:
                files.append(self.file(run))
                ready.append(run)
            except OSError as error:
                self.unwritten[run.config_hash] = f"cannot write {run.folder} ({error})"
        if not ready:
            return
        try:
            reasons = self.dispatch(ready, files)
        except Exception as error:  # a launcher gives up on its whole batch when one worker dies
            reasons = [None] * len(ready)
            self.launcher_error = f"{type(error).__name__}: {error}"
        for run, reason in zip(ready, reasons, strict=True):
            result = sound(run.folder)
            if reason is not None and (result is None or result.status != "failed"):
                self.unwritten[run.config_hash] = reason

    def file(self, run: PlannedRun) -> Path:
        """The file from which a worker trains a run."""
        group = self.groups.get(run.study, run.study)
        return write_job(run, self.options.timeout_minutes, self.marker(run), group, self.options.wait)

    def await_others(self, runs: list[PlannedRun]) -> None:
        """Wait for runs that another sweep trains, of this study or of another, until they are done or given up."""
        while any(self.under_way(run) for run in runs):
            time.sleep(POLL)

    def under_way(self, run: PlannedRun) -> bool:
        now = self.state(run)
        return now in ("running", "queued") or (now in LEFT and not self.stopped(run) and self.lent(run))

    def lent(self, run: PlannedRun) -> bool:
        """Whether another study trains it now, for which this one can wait."""
        return self.options.wait and trained_elsewhere(run.folder)

    def base_failed(self, run: PlannedRun) -> bool:
        """Whether a dense run that this one stands on failed; the run then fails with it."""
        for needed in (self.first.get(h) for h in run.needs):
            if needed is not None and self.state(needed) == "failed":
                result = sound(needed.folder)
                why = (result.error or {}).get("reason", "") if result else ""
                self.fail(run, "dense base", f"{needed.run_id}, on which it stands, failed: {why}")
                return True
        return False

    def fail(self, run: PlannedRun, category: str, reason: str) -> None:
        """Record a failure that the run could not record itself."""
        cfg = run.cfg
        plan = Plan(cfg, None)
        plan.run_id, plan.config_hash, plan.folder = run.run_id, run.config_hash, run.folder  # as its data gave them
        if keep_failure(cfg, plan, category, reason, "") is None:
            self.unwritten[run.config_hash] = reason

    def marker(self, run: PlannedRun) -> Path | None:
        return self.outputs / self.plans[0].study.name / STOP if self.options.on_error == "stop" else None

    def stopped(self, run: PlannedRun) -> bool:
        marker = self.marker(run)
        return marker is not None and marker.exists()

    def outcome(self) -> Outcome:
        out = Outcome(linked=self.linked, launcher_error=self.launcher_error)
        for run in self.unique:
            result = sound(run.folder)
            if self.state(run) == "done":
                out.done.append(run)
            elif run.config_hash in self.unwritten:
                out.failed.append((run, "data", self.unwritten[run.config_hash]))
            elif result is not None and result.status == "failed":
                error = result.error or {}
                out.failed.append((run, error.get("category", "error"), error.get("reason", "")))
            else:
                out.missing.append(run)
        return out
