"""Time and memory of functions that take turns, and the machine they ran on."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dsa.backbones.router import finish
from dsa.judging.provenance import processor
from dsa.judging.speed import peak_megabytes

Work = Callable[[], Any]  # returns the tensors it was called for, or None


CPU = torch.device("cpu")


def take_turns(works: Mapping[str, Work], rounds: int, device: torch.device = CPU) -> dict[str, float]:
    """Median milliseconds of each; one call of every function a round, so that disturbances fall on all alike.

    Args:
        device: where they compute: each is waited for.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            finish(device)
            start = time.perf_counter()
            work()
            finish(device)
            if turn > 0:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(measured) for name, measured in times.items()}


def peak_memory(work: Work, device: torch.device = CPU) -> float:
    """Most bytes allocated at a time during the call beyond the tensors that it returns."""
    returned: list[Tensor] = []
    peak = peak_megabytes(lambda: returned.extend(x for x in work() or () if isinstance(x, Tensor)), device)
    return max(peak * 2**20 - sum(x.nbytes for x in returned), 0)


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """What the times were taken on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": load,
    }
