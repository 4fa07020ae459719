"""Types of command-line arguments, for argparse: each returns the value, or says what it got and what is allowed."""

import argparse
import re


def whole(text: str) -> int:
    """A number of something."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1.")
    return int(text)


def numbers(text: str) -> list[int]:
    """Whole numbers, as 16,32."""
    return [whole(part) for part in text.split(",")]
