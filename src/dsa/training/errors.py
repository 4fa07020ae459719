"""Failures of a run, sorted by what a user can do about them."""

from pathlib import Path

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
    """Whether this package raised the error itself, with words for the user; else the log is worth a look."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    own = str(Path(__file__).resolve().parents[1])
    return last is not None and last.tb_frame.f_code.co_filename.startswith(own)
