"""python -m dsa.analysis outputs/<study>: the verdict on whatever has finished."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from dsa.analysis.analyse import analyse_folder
from dsa.analysis.files import write
from dsa.analysis.tables import show


def main(arguments: list[str] | None = None) -> int:
    """Print a study's tables and write them beside its runs; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis", description=__doc__)
    parser.add_argument("study", type=Path, help="folder of a study, as outputs/quick")
    folder = parser.parse_args(arguments).study
    try:
        analysis = analyse_folder(folder)
        paths = write(analysis, folder)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    show(analysis, out)
    for path in paths:
        out.print(f"[dim]{path}[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
