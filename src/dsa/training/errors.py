"""Failures of a run, sorted by what a user can do about them."""

import torch


def category(error: BaseException) -> str:
    """config, data, nan, out_of_memory, interrupted, or error for what nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, FloatingPointError):
        return "nan"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error):
        return "out_of_memory"
    if isinstance(error, OSError):
        return "data"
    if isinstance(error, ValueError | TypeError):
        return "config"
    return "error"


def expected(error: BaseException) -> bool:
    """Whether the message alone tells the user what to do; the traceback then goes to the log only."""
    return category(error) != "error"
