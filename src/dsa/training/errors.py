"""Failures of a run, sorted by what a user can do about them."""

import errno
from pathlib import Path

import torch

from dsa.signals import causes

NO_MEMORY = ("not enough memory", "can't allocate memory", "std::bad_alloc")
"""How torch's allocator and the C++ library say on the CPU what CUDA's says by an error of its own class."""

FULL = (errno.ENOSPC, errno.EDQUOT)
SPACE = "The disk is full: free some space, then the same command goes on."
SMALLER = (
    "Give a smaller data.batch_size or seq_len, trainer.accumulate=2 or more (each batch in so many parts), or "
    "memory=checkpoint."
)


class RunFailed(Exception):
    """A run ended without a result; one paragraph says why, and its folder says it too.

    Args:
        kind: what sort of failure it was (errors.category).
    """

    def __init__(self, reason: str, kind: str = "error") -> None:
        super().__init__(reason)
        self.kind = kind


class RunRefused(RunFailed):
    """A setting was refused before anything was trained; nothing is left of the run."""


def category(error: BaseException) -> str:
    """config, data, nan, out_of_memory, disk_full, interrupted, or error for what nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, FloatingPointError):
        return "nan"
    if memory_ran_out(error):
        return "out_of_memory"
    if disk_is_full(error):
        return "disk_full"
    if isinstance(error, OSError):
        return "data"
    if isinstance(error, ValueError | TypeError):
        return "config"
    return "error"


def memory_ran_out(error: BaseException) -> bool:
    """Whether there was no more memory to be had, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def disk_is_full(error: BaseException) -> bool:
    """Whether a file could not be written for lack of space, or beyond a quota; torch raises an error of its own then,
    which that one led to."""
    return any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes(error))


def reason(error: BaseException) -> str:
    """What an error says, and what to do about it where it does not say that itself."""
    said = str(error) or type(error).__name__
    if disk_is_full(error):
        first = next(cause for cause in causes(error) if isinstance(cause, OSError) and cause.errno in FULL)
        return f"{first}. {SPACE}"
    return f"{said.rstrip('.')}. {SMALLER}" if memory_ran_out(error) else said


def expected(error: BaseException) -> bool:
    """Whether this package raised the error itself, with words for the user; else the log is worth a look."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    own = str(Path(__file__).resolve().parents[1])
    return last is not None and last.tb_frame.f_code.co_filename.startswith(own)
