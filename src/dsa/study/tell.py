"""What a study says before and after: its plan, and what became of it."""

import shlex
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from dsa.study.estimate import predicted, scale, trained_since
from dsa.study.outcome import Outcome
from dsa.study.plan import PlannedRun, StudyPlan, outlook
from dsa.study.progress import duration, first_line
from dsa.study.store import state


def console() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def show_plan(plans: list[StudyPlan], workers: int = 1) -> None:
    """Studies, runs by condition and state, what cannot apply, what it will cost."""
    out = console()
    unique: dict[str, PlannedRun] = {}
    for plan in plans:
        study = plan.study
        out.print(f"[bold]{study.name}[/]  {study.question}")
        out.print(f"  {len(study.conditions)} conditions x {len(study.seq_len)} lengths x {len(study.seed)} seeds")
        out.print(f"  {outlook(plan)}")
        for run in plan.applicable:
            unique.setdefault(run.config_hash, run)
        for reason, count in not_applicable(plan).items():
            out.print(f"  [yellow]not applicable[/] {reason}" + (f" ({count} runs)" if count > 1 else ""))
    states = {key: state(run.folder, run.template.stale, run.template.allow_targets) for key, run in unique.items()}
    counts = Counter(states.values())
    kinds = Counter(run.kind for run in unique.values())
    left = [run for key, run in unique.items() if states[key] != "done"]
    factor = scale(unique.values())
    cost = sum(map(predicted, left)) * factor / workers
    out.print(
        f"{len(unique)} runs ({kinds['base']} dense bases, {kinds['control']} dense controls, {kinds['run']} others): "
        + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    )
    basis = "by the runs already timed" if factor != 1.0 else "by counted operations"
    out.print(f"{len(left)} to train: about {duration(cost)} ({basis})")


def not_applicable(plan: StudyPlan) -> dict[str, int]:
    """Conditions and lengths that cannot apply, with the reason; how many seeds each stands for."""
    return dict(Counter(f"{run.label} at {run.seq_len}: {run.reason}" for run in plan.runs if run.reason))


def show_submitted(jobs: list[str], folders: list[Path]) -> None:
    """What was handed to a scheduler, and how to follow it."""
    out = console()
    out.print(f"{len(jobs)} jobs submitted" + (f": {jobs[0]} to {jobs[-1]}" if jobs else ""))
    for folder in folders:
        out.print(f"python -m dsa.study status {folder}")


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
            table.add_row(run.label, str(run.seq_len), str(run.seed), category, first_line(reason))
        out.print(table)
        out.print(f"again, just these: {command_line('retry_failed=true')}")
    if outcome.launcher_error:
        out.print(f"[yellow]the launcher gave up on a batch[/] {first_line(outcome.launcher_error)}")
    if outcome.missing:
        out.print(f"{len(outcome.missing)} runs were not started: {command_line()} goes on")
    linked = f", {outcome.linked} of them taken from other studies" if outcome.linked else ""
    out.print(f"{len(outcome.done)} runs done{linked}; {len(outcome.failed)} failed")


def show_time(runs: list[PlannedRun]) -> None:
    """How long this process took, start and analysis included, and how much of that its runs; nothing without runs."""
    begin = psutil.Process().create_time()
    took, whole = trained_since(runs, begin), time.time() - begin
    if took:
        share = f", {100 * sum(took) / whole:.0f} % of that" if sum(took) <= whole else " between them"
        console().print(f"{duration(whole)} in all; the {len(took)} runs trained now took {duration(sum(took))}{share}")
