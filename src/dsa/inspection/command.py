"""python -m dsa.analysis selection outputs/<study>/<run>: where a run's attention went."""

import argparse
import json
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Measure a run and leave selection.json, selection.md and figures in its folder; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dsa.analysis selection", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--to", type=Path, help="folder to write (default: selection in the run's folder)")
    parser.add_argument(
        "--allow-target", action="append", default=[], metavar="PACKAGE", help="of your own, named by the run's config"
    )
    given = parser.parse_args(arguments)
    from dsa.inspection.figures import draw  # late: --help needs no torch
    from dsa.inspection.measure import inspect_run
    from dsa.inspection.text import described

    folder = given.to or given.run / "selection"
    found = inspect_run(given.run, tuple(given.allow_target))
    folder.mkdir(parents=True, exist_ok=True)
    text = described(found)
    (folder / "selection.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (folder / "selection.md").write_text(text)
    for path in (folder / "selection.md", folder / "selection.json", *draw(found, folder)):
        print(path)
    return 0
