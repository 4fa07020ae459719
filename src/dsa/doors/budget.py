"""How few keys a model needs, before any indexer is trained: dsa budget model=smollm2 seq_len=512"""

import argparse
import logging
import sys
from pathlib import Path

from dsa.arguments import numbers
from dsa.checks import above_zero
from dsa.machine import wait_passively
from dsa.signals import read_to_the_end, stoppable


def main(arguments: list[str] | None = None) -> int:
    """Judge, show and write the curves; the exit status is 1 after a failure, 2 if a setting is impossible."""
    parser = argparse.ArgumentParser(
        prog="dsa budget",
        description="Loss against the number of keys: those of highest true attention, the first and nearest, the "
        "nearest, random ones. No indexer is trained; what was judged before is not judged again.",
    )
    parser.add_argument("overrides", nargs="*", help="as train.py takes them: model=smollm2 seq_len=512")
    parser.add_argument(
        "--k", type=numbers, default=[], help="budgets, as 16,32,64; if none, 1/64 to 1/2 of the length"
    )
    parser.add_argument(
        "--margin", type=float, default=0.05, help="loss over dense that counts as none [nats a token] (%(default)s)"
    )
    parser.add_argument(
        "--to", type=Path, default=None, help="folder for json, csv and png; if none, one in output_dir/budgets"
    )
    given = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("dsa").setLevel(logging.INFO)
    wait_passively()
    from dsa.analysis.output.cells import wide_console  # late: --help needs no torch
    from dsa.budget.curve import Point, measure
    from dsa.budget.show import show, write
    from dsa.spec import compose
    from dsa.training.errors import category, reason

    def told(point: Point) -> None:
        said = f"{point.selector}, {point.k} keys: {point.over_dense:+.4f} nats a token over dense"
        print(said, file=sys.stderr, flush=True)

    with read_to_the_end(), stoppable("the same command goes on with what is judged."):
        try:
            above_zero(given.margin, "--margin")
            overrides = ["logger=csv", *given.overrides]
            budget = measure(overrides, given.k, given.margin, told)
            folder = given.to or compose(overrides).outputs / "budgets" / budget.name
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (OSError, FloatingPointError, MemoryError, RuntimeError) as error:
            if category(error) == "error":  # nobody foresaw it
                raise
            print(f"error: {reason(error)}", file=sys.stderr)
            return 1
        show(budget, wide_console())
        for path in write(budget, folder):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
