"""What a study shows while it runs: a line for each run as it ends, and a bar over the whole."""

import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dsa.study.estimate import predicted, seconds
from dsa.study.plan import PlannedRun
from dsa.study.store import sound
from dsa.training.result import FILE, RunResult

POLL = 0.5  # seconds between looks at the run folders
AGAINST = {
    "val_loss": "dense_val_loss",
    "val_accuracy": "dense_val_accuracy",
    "val_perplexity": "dense_val_perplexity",
    "swap_val_loss": "base_val_loss",
    "swap_val_accuracy": "base_val_accuracy",
}


class Watch(AbstractContextManager["Watch"]):
    """Looks at the folders of runs that are not done, whoever trains them, and tells when one ends.

    Args:
        runs: still to be done.
        metrics: what to tell of a run, by study; val_loss where the study is not named.
        finished: number of runs that were done before.
    """

    def __init__(self, runs: list[PlannedRun], metrics: dict[str, str], finished: int) -> None:
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.metrics = metrics
        self.open = {run.folder: run for run in runs}
        self.before = {folder: written(folder) for folder in self.open}
        self.width = max((len(run.label) for run in runs), default=0)
        self.total, self.done_work, self.begin = sum(map(predicted, runs)), 0.0, time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False)
        self.task = self.bar.add_task("runs", total=finished + len(runs), completed=finished, left="")
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

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
        """Tell of every run that ended since the last look."""
        for folder in list(self.open):
            if written(folder) == self.before[folder]:
                continue
            result = sound(folder)
            if result is None:
                continue
            run = self.open.pop(folder)
            self.done_work += predicted(run)
            self.console.print(self.line(run, result))
            self.bar.update(self.task, advance=1, left=self.left())

    def left(self) -> str:
        """Time that the rest will take, by what was done so far."""
        if not self.done_work or not self.open:
            return ""
        rest = (self.total - self.done_work) * (time.monotonic() - self.begin) / self.done_work
        return f"about {duration(rest)} left"

    def line(self, run: PlannedRun, result: RunResult) -> str:
        """Condition, length, seed, metric, how it compares, time."""
        what = f"{run.label if run.kind != 'base' else 'dense base':<{max(self.width, 10)}}"
        where = f"L {run.seq_len:<5} seed {run.seed:<3}"
        if result.status != "finished":
            error = result.error or {}
            return f"[red]{what} {where} failed ({error.get('category')}): {first_line(error.get('reason'))}[/]"
        metric = self.metrics.get(run.study, "val_loss")
        value = getattr(result, metric, None)
        if value is None:
            metric, value = "val_loss", result.val_loss
        other = getattr(result, AGAINST.get(metric, ""), None)
        compared = "" if other is None or value is None else f"(dense {other:.4f}, {value - other:+.4f})"
        accuracy = "" if result.val_accuracy is None else f"accuracy {100 * result.val_accuracy:5.1f} %"
        shown = "" if value is None else f"{metric} {value:.4f} {compared:<26}"
        took = seconds(run)
        return f"{what} {where} {shown} {accuracy}  [dim]{'' if took is None else duration(took)}[/]"


def written(folder: Path) -> int | None:
    """When a result was written [ns]; None if there is none."""
    try:
        return (folder / FILE).stat().st_mtime_ns
    except OSError:
        return None


def first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""


def duration(value: float) -> str:
    """Seconds as a person says them."""
    if value < 100:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"
