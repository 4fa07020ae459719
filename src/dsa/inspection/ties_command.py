"""python -m dsa.analysis ties outputs/<study>/<run> ...: how often equal scores leave the choice to position."""

import argparse
from pathlib import Path

from dsa.analysis.output.of_study import leave


def main(arguments: list[str] | None = None) -> int:
    """Print a row a run; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis ties", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same for programs")
    parser.add_argument(
        "--allow-target", action="append", default=[], metavar="PACKAGE", help="of your own, named by a run's config"
    )
    given = parser.parse_args(arguments)
    from dsa.analysis.output.cells import number, titled, wide_console  # late: --help needs no torch
    from dsa.inspection.ties import ties_of

    table = titled(
        "Ties: of the queries that leave a key out, how many keep one that scores no better",
        "run", "tied", "by layer", "loss, earlier of equal kept", "later kept", "difference",
    )  # fmt: skip
    told = []
    for run in given.runs:
        told.append(found := ties_of(run, tuple(given.allow_target)))
        layers = " ".join("–" if share is None else f"{share:.1%}" for share in found["layers"].values())
        losses = [number(found[name], 5) for name in ("loss_earlier", "loss_later")]
        table.add_row(found["run_id"], f"{found['tied']:.1%}", layers, *losses, f"{found['difference']:+.5f}")
    wide_console().print(table)
    leave(told, given.json)
    return 0
