"""What commands that ask one thing of a study share: what they are given, and what they leave for programs."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


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


def leave(found: Sequence[Any], file: Path | None) -> None:
    """Write what was found as JSON, where a file is named, and say where it is."""
    if file is not None:
        file.write_text(json.dumps([asdict(one) for one in found], indent=1, allow_nan=False) + "\n")
        print(file)
