"""Measured speed and memory of a model."""

import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dsa.backbones import Backbone, Pass
from dsa.backbones.router import finish
from dsa.ops import native

PARTS = ("indexer", "select", "attend", "indexer_loss")


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int, seconds: float) -> float:
    """Median wall time of a call after one to warm up, until the device has done all that it was told [ms].

    Args:
        repeats, seconds: so many calls, or as many as begin within this time; one at least.
    """
    times: list[float] = []
    while len(times) <= repeats and (len(times) < 2 or sum(times[1:]) < 1e3 * seconds):
        finish(device)
        begin = time.perf_counter()
        call()
        finish(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[1:])


@torch.no_grad()
def inference(
    model: Backbone, tokens: Tensor, sparse: bool, repeats: int = 5, seconds: float = math.inf
) -> dict[str, float]:
    """Time of one forward pass over `tokens`, whole and by part of the attention [ms].

    Args:
        repeats, seconds: passes, or as many as begin within this time.
    """
    how = Pass(sparse=sparse)
    training = model.training
    model.eval()
    out = {"infer_ms": milliseconds(lambda: model.run(tokens, how), tokens.device, repeats, seconds)}
    with quiet_profile() as record:
        model.run(tokens, how)
    model.train(training)
    spent = dict.fromkeys([f"dsa/{part}" for part in PARTS[:3]], 0.0)
    for event in events(record):  # as they are: the profiler's own averages take many times the pass itself
        if event.name() in spent:
            spent[event.name()] += event.duration_ns() / 1e6
    return out | {f"{part}_ms": spent[f"dsa/{part}"] for part in PARTS[:3]}


def events(record: profile) -> Any:
    """What a profile recorded, in order."""
    profiler: Any = record.profiler
    return profiler.kineto_results.events()


@contextmanager
def quiet_profile(memory: bool = False) -> Iterator[profile]:
    """torch's profiler, without the lines it writes to the error stream whenever it starts and stops."""
    if memory:
        native.workspace.release()  # what the kernels kept from other calls counts too
    sys.stderr.flush()
    error_stream, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=memory) as record:
            yield record
    finally:
        os.dup2(error_stream, 2)
        os.close(error_stream)
        os.close(nowhere)


def peak_megabytes(call: Callable[[], object], device: torch.device) -> float:
    """Most memory that torch held at once for tensors made within the call [MB, 2^20 bytes]."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with quiet_profile(memory=True) as record:
        call()
    now = peak = 0
    for event in events(record):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / 2**20


class Contention:
    """How much of the processors other processes have used since this was made."""

    def __init__(self) -> None:
        self.begin = self.reading()

    def others(self) -> float:
        """Cores that others kept busy, as a share of all cores."""
        everyone, mine, wall = (now - then for then, now in zip(self.begin, self.reading(), strict=True))
        return max(0.0, everyone - mine) / max(wall * (psutil.cpu_count() or 1), 1e-9)

    @staticmethod
    def reading() -> tuple[float, float, float]:
        """Processor seconds of everyone and of this process, and the clock."""
        system, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = system.idle + getattr(system, "iowait", 0.0)
        return sum(system[:8]) - idle, own.user + own.system, time.monotonic()
