"""What a study shows while it runs: a line for each run and each artifact as it ends, and a bar over the runs."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dsa.artifacts.files import RESULT
from dsa.artifacts.results import RunResult
from dsa.study.estimate import judging, making, seconds, step
from dsa.study.jobs import Job, Kind, ToDo
from dsa.study.planned import PlannedRun
from dsa.study.states import written
from dsa.study.workers.claim import ENDED

POLL = 0.5  # seconds between looks at the folders
AGAINST = {
    "val_loss": "dense_val_loss",
    "val_accuracy": "dense_val_accuracy",
    "val_exact_match": "dense_val_exact_match",
    "val_perplexity": "dense_val_perplexity",
    "swap_val_loss": "base_val_loss",
    "swap_val_accuracy": "base_val_accuracy",
    "swap_val_exact_match": "base_val_exact_match",
}
MADE: tuple[Kind, ...] = ("base", "cohort", "control")


@dataclass
class Item:
    """Something that will end: a file tells when.

    Args:
        before: when the file was last written before this sweep [ns]; None = it was not there.
        weight: how long it takes, about [s].
        line: what to say when it ends; None while the file says nothing yet.
    """

    path: Path
    before: int | None
    weight: float
    line: Callable[[], str | None]
    is_run: bool


class Watch(AbstractContextManager["Watch"]):
    """Looks at the folders of what is not done, whoever does it, and tells when something ends.

    Args:
        metrics: what to tell of a run, by study.
    """

    def __init__(self, todo: ToDo, metrics: dict[str, str]) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.todo, self.metrics = todo, metrics
        self.items: list[Item] = []
        self.width = 10
        self.total, self.done_work, self.begin = 0.0, 0.0, time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False)
        self.task = self.bar.add_task("runs", total=0, completed=0, left="")
        self.ended, self.looking = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def add(self, runs: list[PlannedRun]) -> None:
        """Watch runs and what has to be made for them."""
        left = self.todo.open(runs)
        with self.looking:
            self.width = max([self.width, *(len(run.label) for run in left)])
            self.items += [self.of_run(run) for run in left]
            for kind in MADE:
                self.items += [self.of_job(job) for job in self.todo.jobs(kind, runs)]
            self.total = self.done_work + sum(item.weight for item in self.items)
        task = self.bar.tasks[0]
        done = task.completed + len(runs) - len(left)
        self.bar.update(self.task, total=(task.total or 0) + len(runs), completed=done)

    def of_run(self, run: PlannedRun) -> Item:
        joint = run.spec.recipe.sparse_steps * step(run.spec) if self.todo.trains(run) else 0.0
        path = run.folder / RESULT
        return Item(path, written(path), judging(run.spec) + joint, lambda: self.told(run), True)

    def of_job(self, job: Job) -> Item:
        path = job.folder / ENDED
        return Item(path, written(path), making(job), lambda: took(job), False)

    def told(self, run: PlannedRun) -> str | None:
        result = self.todo.results.of(run.folder)
        return None if result is None else self.line(run, result)

    def __enter__(self) -> "Watch":
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.look()
        self.bar.stop()

    def watch(self) -> None:
        while not self.ended.wait(POLL):
            self.look()

    def look(self) -> None:
        """Tell of everything that ended since the last look."""
        with self.looking:
            ended = []
            for item in self.items:
                text = item.line() if written(item.path) != item.before else None
                if text is not None:
                    self.console.print(text)
                    ended.append(item)
            if ended:
                self.items = [item for item in self.items if item not in ended]
                self.done_work += sum(item.weight for item in ended)
                self.bar.update(self.task, advance=sum(item.is_run for item in ended), left=self.left())

    def left(self) -> str:
        """Time that the rest will take, by what was done so far."""
        if not self.done_work or not self.items:
            return ""
        rest = (self.total - self.done_work) * (time.monotonic() - self.begin) / self.done_work
        return f"about {duration(rest)} left"

    def line(self, run: PlannedRun, result: RunResult) -> str:
        """Condition, length, seed, metric, how it compares."""
        what = f"{escape(run.label):<{self.width}}"
        where = f"L {run.seq_len:<5} seed {run.seed:<3}"
        if result.status != "finished":
            error = result.error or {}
            return f"[red]{what} {where} failed ({error.get('category')}): {escape(first_line(error.get('reason')))}[/]"
        metric = self.metrics.get(run.study, "val_loss")
        value = getattr(result, metric, None)
        if value is None:
            metric, value = "val_loss", result.val_loss
        other = getattr(result, AGAINST.get(metric, ""), None)
        compared = "" if other is None or value is None else f"(dense {other:.4f}, {value - other:+.4f})"
        accuracy = "" if result.val_accuracy is None else f"accuracy {100 * result.val_accuracy:5.1f} %"
        shown = "" if value is None else f"{metric} {value:.4f} {compared:<26}"
        return f"{what} {where} {shown} {accuracy}"


def took(job: Job) -> str:
    """What a job made, and how long that took."""
    value = seconds(job.folder)
    return f"[dim]{escape(job.title)}  {'' if value is None else duration(value)}[/]"


def first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""


def duration(value: float) -> str:
    """Seconds as a person says them."""
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"
