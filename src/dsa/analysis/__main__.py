"""python -m dsa.analysis outputs/<study>: the verdict on whatever has finished.

python -m dsa.analysis selection outputs/<study>/<run>: where a run's attention went.
python -m dsa.analysis ties outputs/<study>/<run> ...: how often equal scores leave the choice to position.
python -m dsa.analysis samples outputs/<study>: conditions compared row by row within each seed (of texts).
python -m dsa.analysis draws outputs/<study>: how much lies between bases, how much between draws of the indexers.
python -m dsa.analysis heads outputs/<study>/<run> ...: signs, clipped keys and ablations, head by head.
python -m dsa.analysis lead outputs/<study>/<run> --layers 2: which layers keep an indexer if they lead others.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from dsa.signals import read_to_the_end

COMMANDS = {
    "selection": "dsa.inspection.command",
    "ties": "dsa.inspection.ties_command",
    "heads": "dsa.inspection.heads_command",
    "samples": "dsa.analysis.output.samples",
    "draws": "dsa.analysis.output.draws",
    "lead": "dsa.inspection.lead_command",
}


def main(arguments: list[str] | None = None) -> int:
    """Print a study's tables and write them beside its runs; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        command = import_module(COMMANDS[arguments[0]])
        try:
            return command.main(arguments[1:])
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    parser = argparse.ArgumentParser(
        prog="python -m dsa.analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of a study, as outputs/quick")
    folder = parser.parse_args(arguments).study
    from dsa.analysis.judgement.analysis import analyse_folder  # late: --help needs no statistics
    from dsa.analysis.output.cells import wide_console
    from dsa.analysis.output.files import write
    from dsa.analysis.output.terminal import show

    try:
        analysis = analyse_folder(folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        paths = write(analysis, folder)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    out = wide_console()
    show(analysis, out)
    for path in paths:
        out.print(str(path), style="dim", markup=False)
    return 0


if __name__ == "__main__":
    with read_to_the_end():
        sys.exit(main())
