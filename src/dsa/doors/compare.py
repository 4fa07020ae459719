"""Runs side by side: dsa compare outputs/runs/*"""

import argparse
import sys

from dsa.analysis.inputs.runs import runs_at
from dsa.analysis.output.cells import wide_console
from dsa.analysis.output.runs import show_runs
from dsa.signals import read_to_the_end


def main(arguments: list[str] | None = None) -> int:
    """Print the table of some runs; its exit status: 2 if a path leads to none."""
    parser = argparse.ArgumentParser(prog="dsa compare", description="Set runs side by side: what differs, what came.")
    parser.add_argument(
        "runs",
        nargs="+",
        help="folders of runs, their result.json, folders that hold them, or patterns: outputs/runs/*",
    )
    given = parser.parse_args(arguments).runs
    runs, nothing = runs_at(given)
    if not runs:
        print(f"error: {', '.join(nothing)}: no run there. Give folders of runs, as outputs/runs/*.", file=sys.stderr)
        return 2
    show_runs(runs, wide_console())
    if nothing:
        print(f"error: {', '.join(nothing)}: no run there.", file=sys.stderr)
    return 2 if nothing else 0


if __name__ == "__main__":
    with read_to_the_end():
        sys.exit(main())
