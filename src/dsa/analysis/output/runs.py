"""Runs side by side: what differs between them, and what each measured."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsa.analysis.inputs.differing import differing
from dsa.analysis.inputs.runs import OneRun
from dsa.analysis.output.cells import number
from dsa.artifacts.results import RunResult

MEANING = "parameters: of the indexers; operations: attention with its indexer, against dense attention"
MOST = 5  # settings that have a column of their own; more stand together in one
LEAST = 14  # columns of a setting, if it needs them
NO_SPEED = "step times in brackets are no speed: attention ran under a mask, or its number format was simulated"


def show_runs(runs: list[OneRun], out: Console) -> None:
    """One row a run; those that failed too, below with their reason."""
    labels = differing([run.settings for run in runs])
    named = [" ".join(f"{name}={values[n]}" for name, values in labels.items()) for n in range(len(runs))]
    out.print(table_of(runs, labels if len(labels) <= MOST else {"settings": named}))
    for name, run in zip(named, runs, strict=True):
        if not run.finished:
            out.print(f"{escape(name or run_id(run))}: {escape(str(run.reason))}", soft_wrap=True)
    if any(run.finished for run in runs):
        out.print(f"[dim]{MEANING}[/]")
    if any(run.result is not None and bracketed(run.result) for run in runs):
        out.print(f"[dim]{NO_SPEED}[/]")


def table_of(runs: list[OneRun], labels: Mapping[str, Sequence[str]]) -> Table:
    """The table; a measure that no run has is left out.

    Args:
        labels: settings that differ, each with its value in every run.
    """
    table = Table(title=f"{len(runs)} runs" if len(runs) > 1 else "1 run", title_justify="left")
    columns = [list(values) for values in labels.values()]
    for name, values in labels.items():
        table.add_column(escape(name), overflow="fold", min_width=min(LEAST, max(map(len, (name, *values)))))
    if len(set(zip(*columns, strict=True))) < len(runs):  # the settings alone do not tell them apart
        table.add_column("run", overflow="fold")
        columns.append([run_id(run) for run in runs])
    for name, cell in measures(runs).items():
        values = [cell(run.result) if run.result is not None and run.finished else "" for run in runs]
        if any(values):
            table.add_column(name, justify="right", no_wrap=True)  # settings give way, no digit is cut
            columns.append(values)
    columns.append([status(run) for run in runs])
    table.add_column("status", no_wrap=True)
    for row in zip(*columns, strict=True):
        table.add_row(*map(escape, row))
    return table


def measures(runs: list[OneRun]) -> dict[str, Callable[[RunResult], str]]:
    """The columns of what was measured."""
    return {
        loss_name(runs): lambda r: fixed(r.val_loss),
        "to dense": lambda r: "" if r.delta_loss is None else f"{r.delta_loss:+.4f}",
        "accuracy": lambda r: percent(r.val_accuracy),
        "mass": lambda r: fixed(r.selection.get("mean", {}).get("mass"), 3),
        "k": lambda r: "" if r.mean_k is None else number(r.mean_k),
        "parameters": lambda r: f"{r.params['indexer']:,}" if r.params else "",
        "operations": lambda r: percent(operations(r)),
        "step, ms": step,
    }


def loss_name(runs: list[OneRun]) -> str:
    """What the loss is: with the backbone untouched (swap), after training (val), or here this and there that."""
    untouched = {
        run.result.swap_val_loss is not None and run.result.artifacts.get("joint") is None
        for run in runs
        if run.result is not None and run.finished
    }
    return "loss" if len(untouched) > 1 else "swap loss" if untouched == {True} else "val loss"


def fixed(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def operations(result: RunResult) -> float | None:
    """Operations of attention and indexer over those of dense attention."""
    dense = result.flops.get("dense_attention")
    return (sum(result.flops.values()) - dense) / dense if dense else None


def step(result: RunResult) -> str:
    took = result.time.get("step_ms")
    if took is None:
        return ""
    return f"({took:.0f})" if bracketed(result) else f"{took:.0f}"


def bracketed(result: RunResult) -> bool:
    """Whether a step was timed whose time is no speed."""
    sparse = result.density is not None and result.density < 1.0
    return sparse and not result.speed_is_real and result.time.get("step_ms") is not None


def status(run: OneRun) -> str:
    """How a run ended."""
    if run.finished:
        return "finished"
    return "open" if run.open else "failed"


def run_id(run: OneRun) -> str:
    return "" if run.result is None else run.result.run_id
