"""A study's dashboard on W&B, as code: dsa dashboard outputs/quick"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from dsa.signals import read_to_the_end
from dsa.targets import TargetRefused

MODES = ("auto", "online", "offline")


def main(arguments: list[str] | None = None) -> int:
    """Make a study's workspace and report, and send them where there is an account; the exit status."""
    parser = argparse.ArgumentParser(
        prog="dsa dashboard",
        description="Make a W&B workspace and a W&B report of a study, with panels of what its runs logged.",
    )
    parser.add_argument("study", type=Path, help="folder of a study, as outputs/quick")
    parser.add_argument("--mode", choices=MODES, default="auto", help="auto: online with an API key, else offline")
    parser.add_argument(
        "--allow-target", action="append", default=[], metavar="PACKAGE",
        help="a package of your own whose classes the runs' configurations may name; the folder cannot admit it",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if find_spec("wandb_workspaces") is None:
        print("error: wandb-workspaces is not installed; pip install -e '.[dashboard]' -c constraints.txt",
              file=sys.stderr)  # fmt: skip
        return 2
    try:
        return made(given.study, given.mode, given.allow_target)
    except (ValueError, TargetRefused, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def made(study: Path, mode: str, admitted: list[str]) -> int:
    """The boards of a study, kept in its folder, and sent if that is asked for; the exit status."""
    from dsa.study.boards import boards
    from dsa.training.loggers import has_key

    command = f"dsa dashboard {study} --mode online"
    kept = boards(study, admitted=admitted).keep(study)
    if mode == "offline" or (mode == "auto" and (not has_key() or os.environ.get("WANDB_MODE", "online") != "online")):
        print(f"Kept as {' and '.join(map(str, kept))}; with WANDB_API_KEY set, `{command}` sends them to W&B, where "
              f"`python -m dsa.study sync {study}` puts the runs that they show.")  # fmt: skip
        return 0
    import wandb

    try:
        entity = wandb.Api().default_entity or ""
        addresses = boards(study, entity, admitted).send()
    except (wandb.errors.Error, OSError) as error:
        print(f"error: W&B did not take them ({error}); they are kept as {' and '.join(map(str, kept))}, and "
              f"`{command}` tries again.", file=sys.stderr)  # fmt: skip
        return 1
    for address in addresses:
        print(address)
    return 0


if __name__ == "__main__":
    with read_to_the_end():
        sys.exit(main())
