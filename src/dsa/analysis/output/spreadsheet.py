"""Tables that somebody opens in a spreadsheet, where text that begins like a formula would be run as one."""

from typing import Any

import pandas as pd

BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before text that a spreadsheet would take for a formula; numbers stay numbers."""
    texts = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{str(name): table[name].map(as_text, na_action="ignore") for name in texts})


def as_text(value: Any) -> Any:
    """A cell, marked as text if it is text that begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(BEGINNINGS) else value
