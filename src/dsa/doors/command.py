"""dsa: train, sweep, judge, compare, report, dashboard, status, bench and the rest, for a checkout as for a wheel."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from dsa.signals import read_to_the_end

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("one run: dsa train indexer=h2d32 pattern=local_global", "dsa.doors.train"),
    "judge": ("a run without joint training: seconds once its base is there", "dsa.doors.train"),
    "sweep": ("a study of many runs: dsa sweep study=quick", "dsa.doors.sweep"),
    "report": ("the verdict on a study: dsa report outputs/quick", "dsa.analysis.__main__"),
    "compare": ("runs side by side: dsa compare outputs/runs/*", "dsa.doors.compare"),
    "dashboard": ("a study's panels on W&B, as code: dsa dashboard outputs/quick", "dsa.doors.dashboard"),
    "status": ("how far a study is: dsa status outputs/quick", "dsa.study.__main__"),
    "study": ("look after a study: dsa study time|conclude|sync|browse outputs/quick", "dsa.study.__main__"),
    "fetch": ("get a pretrained model: dsa fetch smollm2", "dsa.doors.fetch"),
    "budget": ("how few keys a model needs: dsa budget model=smollm2 seq_len=512", "dsa.doors.budget"),
    "bench": ("measure speed: dsa bench attention", "dsa.bench.__main__"),
}
ADDED = {"judge": ["judge=swap"], "status": ["status"]}
"""What a command adds to those that it shares its module with."""


def main(arguments: list[str] | None = None) -> int:
    """The console command; its exit status."""
    with read_to_the_end():
        return carried_out(arguments)


def carried_out(arguments: list[str] | None) -> int:
    """The exit status of a command line, once it is carried out."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print("usage: dsa COMMAND ..., each with its own --help")
        for name, (what, _) in COMMANDS.items():
            print(f"  {name:<10}{what}")
        return 0 if given else 2
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        print(f"error: dsa {name}: no such command. Give {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    module = import_module(COMMANDS[name][1])
    script = str(Path(str(module.__file__)))
    # As if the module had been called by itself: processes that a run starts begin with the same line.
    sys.argv = [script, *ADDED.get(name, []), *rest]
    run: Callable[[], int | None] = module.main
    return run() or 0


if __name__ == "__main__":
    sys.exit(main())
