"""python -m dsa.analysis lead outputs/<study>/<run> --layers 2: which layers keep an indexer if they lead others."""

import argparse
from pathlib import Path

from dsa.analysis.output.of_study import leave


def main(arguments: list[str] | None = None) -> int:
    """Print a row a step and the setting that follows; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis lead", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run with an indexer at every layer")
    parser.add_argument("--layers", type=int, required=True, metavar="N", help="how many layers keep an indexer")
    parser.add_argument("--rows", type=int, default=256, metavar="N", help="rows that decide (default: 256)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same for programs, by pairs of layers too")
    parser.add_argument(
        "--allow-target", action="append", default=[], metavar="PACKAGE", help="of your own, named by the run's config"
    )
    given = parser.parse_args(arguments)
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from dsa.analysis.output.cells import number, titled, wide_console  # late: --help needs no torch
    from dsa.inspection.lead import lead_of

    columns = TextColumn("ways to share that were tried"), MofNCompleteColumn(), TimeElapsedColumn()
    watched = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=watched, transient=True, disable=not watched.is_terminal
    ) as bar:
        task = bar.add_task("tried", total=None)
        found = lead_of(
            given.run, given.layers, given.rows, tuple(given.allow_target),
            lambda done, of: bar.update(task, completed=done, total=of),
        )  # fmt: skip
    table = titled(
        f"{found['run_id']}: layers that stop leading, each time the one without whose indexer the calibration loss is "
        "least",
        "step", "layer", "calibration loss", "held-out loss", "difference", "mass", "overlap", "layers that lead",
    )  # fmt: skip
    first = found["steps"][0]
    for index, step in enumerate(found["steps"]):
        layer = "–" if step["layer"] is None else str(step["layer"])
        overlap = "–" if step["overlap"] is None else f"{step['overlap']:.1%}"
        losses = [number(step["calibration_loss"], 5), number(step["loss"], 5), f"{step['loss'] - first['loss']:+.5f}"]
        table.add_row(str(index), layer, *losses, f"{step['mass']:.1%}", overlap, listed(step["leaders"]))
    out = wide_console()
    out.print(table)
    out.print(f"index_every={listed(found['leaders'])}", markup=False)
    leave(found, given.json)
    return 0


def listed(leaders: list[int]) -> str:
    """As a command line takes it."""
    return f"[{','.join(map(str, leaders))}]"
