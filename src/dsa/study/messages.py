"""What a study says before and after: its plan, and what became of it."""

import shlex
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsa.graph import Need
from dsa.judging.threads import counted, crowding
from dsa.study.composer import root
from dsa.study.estimate import done_since, kept, scales, untimed
from dsa.study.jobs import IN_ORDER, ToDo
from dsa.study.outcome import Outcome
from dsa.study.outlook import outlook, plural
from dsa.study.plan import StudyPlan
from dsa.study.planned import PlannedRun
from dsa.study.progress import duration, first_line
from dsa.study.question import Study
from dsa.study.states import OPEN, Results, Shelf
from dsa.study.workers.places import JOBS
from dsa.training.fits import too_many

SHOWN = ("base", "indexers", "joint", "judgement")


def console() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def show_plan(plans: list[StudyPlan], workers: int = 1, here: bool = True) -> None:
    """Studies, runs by state, artifacts by kind, what cannot apply, what it will cost.

    Args:
        workers: jobs that are done at once; here: on this machine, whose memory they share.
    """
    out = console()
    runs: dict[tuple[str, str], PlannedRun] = {}
    for plan in plans:
        study = plan.study
        out.print(f"[bold]{escape(study.name)}[/]  {escape(study.question)}")
        out.print(f"  {escape(size(study))}, {escape(judged(plan))}")
        out.print(f"  baseline: {escape(study.baseline)}")
        out.print(f"  {outlook(study)}")
        for key, labels in plan.dropped.items():
            out.print(f"  [yellow]left out[/] {escape(left_out(plan, key, labels))}")
        for reason, count in not_applicable(plan).items():
            out.print(f"  [yellow]not applicable[/] {escape(reason)}" + (f" ({count} runs)" if count > 1 else ""))
        runs |= {run.key: run for run in plan.applicable}
    spec = plans[0].runs[0].spec
    todo = ToDo(Shelf(spec.outputs, spec.stale), Results(spec.stale))
    states = {key: todo.results.state(run) for key, run in runs.items()}
    counts = sorted(Counter(states.values()).items())
    out.print(f"{plural(len(runs), 'run')}: " + ", ".join(f"{count} {name}" for name, count in counts))
    out.print("; ".join(artifacts(todo, list(runs.values()))))
    left = [run for key, run in runs.items() if states[key] in OPEN]
    show_cost(out, todo, left, workers)
    specs = [run.spec for run in left] if here and workers > 1 else []
    if (together := too_many(specs, workers)) is not None:
        out.print(f"[yellow]warning[/] {escape(together)}")


def size(study: Study) -> str:
    """What its runs are for."""
    conditions = plural(len(study.conditions), "condition")
    if study.controls:
        conditions += f" and {plural(len(study.controls), 'control')} ({', '.join(study.controls)})"
    indexers = f" x {plural(len(study.indexer_seed), 'seed')} of the indexers" if study.indexer_seed else ""
    return f"{conditions} x {plural(len(study.seq_len), 'length')} x {plural(len(study.seed), 'seed')}{indexers}"


def show_threads(before: int | None, here: int | None) -> None:
    """Warn where a study goes on with another number of threads than it would begin with, or with too many.

    Args:
        before: with which it was begun; None if it begins now.
        here: of this process, where jobs are done in it; None where a launcher decides.
    """
    if before is not None and before != here:
        instead = "" if here is None else f" and not with {here}"
        told = f"this study was begun with {counted(before)}: it goes on with {before}{instead}, another number would "
        console().print(f"[yellow]warning[/] {told}round otherwise; name=NAME begins another.")
    if before is not None or here is None or torch.cuda.is_available():
        return
    advice = crowding(here, "sweep.py")
    if advice is not None:
        console().print(f"[yellow]warning[/] {escape(advice)}")


def judged(plan: StudyPlan) -> str:
    """How the conditions are judged."""
    study = plan.study
    if study.judge == "swap":
        return "judged with the backbone untouched"
    if study.judge == "val":
        joint = any(run.graph.joint is not None for run in plan.applicable)
        return "judged after joint training" if joint else "judged on the model as it is given"
    if study.finalists is None:
        return "judged with the backbone untouched, then after joint training"
    fresh = f"seeds {study.fresh[0]} to {study.fresh[-1]}"
    if not plan.chosen:
        return f"judged with the backbone untouched; the best {study.finalists} then trained jointly on {fresh}"
    labels = "; ".join(
        f"L {seq_len}{f' {context}' if context else ''}: {', '.join(chosen)}"
        for (seq_len, context), chosen in plan.chosen.items()
    )
    return f"judged with the backbone untouched; chosen for joint training on {fresh}: {labels}"


def artifacts(todo: ToDo, runs: list[PlannedRun]) -> list[str]:
    """How many artifacts of each kind are there, and how many are missing."""
    needs: dict[str, dict[str, Need]] = {kind: {} for kind in SHOWN}
    for run in runs:
        graph = run.graph
        control = graph.control if run.spec.dense_control else None
        for need in (graph.base, graph.indexers, graph.joint, control, graph.dense, graph.swap, graph.window,
                     graph.sinks, graph.final, graph.control_final):  # fmt: skip
            if need is not None:
                needs[need.kind][need.hash] = need
    names = {"base": "bases", "joint": "joint trainings", "judgement": "judgements"}
    out = []
    for kind, wanted in needs.items():
        there = sum(todo.shelf.has(need) for need in wanted.values())
        out.append(f"{names.get(kind, kind)} {there} there, {len(wanted) - there} missing")
    return out


def show_cost(out: Console, todo: ToDo, left: list[PlannedRun], workers: int) -> None:
    """Jobs, hours and disk of the runs that are left."""
    jobs = [job for kind in IN_ORDER for job in todo.jobs_of(kind, left)]
    counts = Counter(job.kind for job in jobs)
    timed = scales(todo.shelf.store.root)
    scaled = [job.predicted * (timed.of(job.kind) if timed.known else untimed(job.first.spec)) for job in jobs]
    basis = "by the jobs already timed" if timed.known else "by counted operations"
    what = ", ".join(f"{counts[kind]} {kind}" for kind in IN_ORDER if counts[kind]) or "none"
    disk = sum(map(kept, jobs)) / 1e6
    out.print(f"jobs to do: {what}; about {duration(sum(scaled) / workers)} ({basis}), {disk:,.0f} MB kept")


def left_out(plan: StudyPlan, key: str, labels: list[str]) -> str:
    """Which value of the yaml does not hold, where, and why."""
    study, group = plan.study, root(key)
    where = "" if len(labels) == len(study.conditions) else f" in {', '.join(labels)}"
    return f"{key}={study.written[key]}{where}: the yaml gives it for {group}={study.written[group]}, not chosen here"


def not_applicable(plan: StudyPlan) -> dict[str, int]:
    """Conditions and lengths that cannot apply, with the reason; how many seeds each stands for."""
    return dict(Counter(f"{run.label} at {run.seq_len}: {run.reason}" for run in plan.runs if run.reason))


def show_submitted(jobs: list[str], folders: list[Path], to_choose: bool) -> None:
    """What was handed to a scheduler, and how to follow it."""
    out = console()
    out.print(f"{plural(len(jobs), 'job')} submitted" + (f": {jobs[0]} to {jobs[-1]}" if len(jobs) > 1 else ""))
    for folder in folders:
        out.print(f"python -m dsa.study status {folder}", markup=False)
    if to_choose:
        out.print(
            f"when these have ended, the same command submits the joint training of the finalists: {command_line()}",
            markup=False,
        )


def command_line(*more: str) -> str:
    """The command that started this sweep, with more settings in the place of what it said of them."""
    keys = tuple(f"{setting.split('=')[0]}=" for setting in more)
    given = [part for part in sys.argv if part != "--multirun" and not (keys and part.startswith(keys))]
    return shlex.join(["python", *given, *more])


def show_outcome(outcome: Outcome) -> None:
    """What failed, and the command that repeats just that."""
    out = console()
    if outcome.failed:
        table = Table("condition", "length", "seed", "category", "reason", title="failed", title_justify="left")
        for run, category, reason in outcome.failed:
            table.add_row(escape(run.label), str(run.seq_len), str(run.seed), category, escape(first_line(reason)))
        out.print(table)
        out.print(f"again, just these: {command_line('retry_failed=true')}", markup=False)
    if outcome.launcher_error:
        out.print(f"[yellow]the launcher gave up on a batch[/] {escape(first_line(outcome.launcher_error))}")
    if outcome.missing:
        out.print(f"not started: {plural(len(outcome.missing), 'run')}; {command_line()} goes on", markup=False)
    out.print(f"{plural(len(outcome.done), 'run')} done; {len(outcome.failed)} failed")


def show_time(outputs: Path) -> None:
    """How long this process took, start and analysis included, and how much of that its jobs; nothing without jobs."""
    begin = psutil.Process().create_time()
    took, whole = done_since((outputs / JOBS).glob("*-*"), begin), time.time() - begin
    if took:
        share = f", {100 * sum(took) / whole:.0f} % of that" if sum(took) <= whole else " between them"
        console().print(f"{duration(whole)} in all; the {len(took)} jobs done now took {duration(sum(took))}{share}")
