"""What commands that ask one thing of a study or a run share: what they are given, and leave for programs."""

import argparse
from pathlib import Path
from typing import Any

from dsa.artifacts.atomic import write_json


def asked(name: str, about: str | None, study: str, metrics: str, arguments: list[str] | None) -> argparse.Namespace:
    """study, metric and json of a command line.

    Args:
        about: what the command says of itself.
        study, metrics: what it says of these.
    """
    parser = argparse.ArgumentParser(prog=f"python -m dsa.analysis {name}", description=about)
    parser.add_argument("study", type=Path, help=study)
    parser.add_argument("--metric", help=f"{metrics}, ... (default: the study's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same for programs")
    return parser.parse_args(arguments)


def leave(found: Any, file: Path | None) -> None:
    """Write what was found, plain data, as JSON, where a file is named, and say where it is."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found, strict=True)
        print(file)
