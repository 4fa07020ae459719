"""What tables in the terminal share: where they are printed, how a number is written."""

import sys

from rich.console import Console
from rich.table import Table


def wide_console() -> Console:
    """The terminal; where the output goes to a file, wide enough to cut nothing."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)


def titled(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"
