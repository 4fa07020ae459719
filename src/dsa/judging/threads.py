"""How many threads compute: a number that rounding depends on, and on a busy machine the time too."""

import logging
import os
import time

import psutil
import torch

from dsa.judging.speed import Contention
from dsa.judging.world import first_process
from dsa.machine import WAITING, cores

logger = logging.getLogger(__name__)
LOOK = 0.2  # seconds


def crowding(threads: int, program: str) -> str | None:
    """What to do where there are fewer free cores than threads; None where there are enough.

    Args:
        program: train.py or sweep.py, for the command that is advised.
    """
    if threads == 1:
        return None
    there, all_cores = cores(), psutil.cpu_count() or 1
    if threads > there + 0.5:
        where = f"{there:g} cores are given to this process"
        return f"{threads} threads compute where {where}: {remedy(program, max(1, int(there)))}"
    company = Contention()
    time.sleep(LOOK)
    busy = company.others() * all_cores
    if busy + threads <= all_cores + 0.5:
        return None
    where = f"other processes use {busy:.1f} of {all_cores} cores"
    return f"{threads} threads compute while {where}: {remedy(program, max(1, int(all_cores - busy)))}"


def counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def remedy(program: str, threads: int) -> str:
    """The command that is faster on a busy machine."""
    passive = "" if os.environ.get(WAITING) else f", and {WAITING}=passive python {program} ... with as many threads"
    return (
        "threads that wait for each other can take several times as long. "
        f"OMP_NUM_THREADS={threads} python {program} ... is faster{passive}."
    )


def use(count: int, whose: str) -> None:
    """Compute with a number of threads that something began with, for another number rounds otherwise.

    Args:
        whose: what began with it, as "the checkpoint was made".
    """
    here = torch.get_num_threads()
    if count == here:
        return
    if count > cores():
        told = (
            f"{whose} with {counted(count)}, for which there are too few cores here: it goes on with {here}, and its "
        )
        told += "numbers may differ by rounding from those of one number of threads."
    else:
        torch.set_num_threads(count)
        told = (
            f"{whose} with {counted(count)}: it goes on with {count} and not with {here}, which would round otherwise."
        )
    if first_process():
        logger.warning(told)
