"""SIGTERM stops a program as Ctrl-C does: everything is left in order, and the exit status says what happened."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. It is a kind of Ctrl-C, so that whoever cleans up after that cleans up after this."""


def terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def heeded() -> Iterator[None]:
    """Meanwhile SIGTERM raises Terminated, unless it is handled already, as in the jobs of a scheduler.

    In a thread other than the first nothing can handle a signal, and nothing changes.
    """
    first = threading.current_thread() is threading.main_thread()
    if not first or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def behind(error: BaseException | None) -> signal.Signals | None:
    """The signal that an error goes back to, if one does; Lightning turns an interruption into a plain exit."""
    stop = next((cause for cause in causes(error) if isinstance(cause, KeyboardInterrupt)), None)
    return None if stop is None else signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, each once: a chain of errors may run in a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


@contextmanager
def read_to_the_end() -> Iterator[None]:
    """The body of a program whose output may go to one that stops reading, as `head -1` does.

    Raises:
        SystemExit: when that happened, with the status that shells have for it (141); nothing more is said.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # now, and not as Python ends, which tells of it
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.exit(128 + signal.SIGPIPE)


@contextmanager
def stoppable(advice: str) -> Iterator[None]:
    """The body of a program that Ctrl-C and SIGTERM may stop.

    Args:
        advice: what to do now, told in the program's last line.

    Raises:
        SystemExit: when stopped, with the status that shells have for the signal: 130 or 143.
    """
    with heeded():
        try:
            yield
        except (KeyboardInterrupt, SystemExit) as error:
            number = behind(error)
            if number is None:
                raise
            print(f"stopped by {number.name}: {advice}", file=sys.stderr)
            sys.exit(128 + number)
