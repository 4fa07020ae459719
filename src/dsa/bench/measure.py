"""Time and memory of functions that take turns, and the machine they ran on."""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsa.judging.provenance import processor
from dsa.judging.speed import quiet_profile

Work = Callable[[], Any]  # returns the tensors it was called for


def take_turns(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Median milliseconds of each; one call of every function a round, so that disturbances fall on all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn > 0:  # the first round warms up
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(measured) for name, measured in times.items()}


def peak_memory(work: Work) -> float:
    """Most bytes allocated at a time during the call beyond what it returns, by torch's CPU allocator."""
    with quiet_profile(memory=True) as profile:
        returned = work()
    kept = sum(x.numel() * x.element_size() for x in returned if isinstance(x, Tensor))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(errors="replace"))["traceEvents"]
    changes = sorted(
        ((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"), key=lambda e: e[0]
    )
    now = highest = 0
    for _, change in changes:
        now += change
        highest = max(highest, now)
    return max(highest - kept, 0)


def machine() -> dict[str, Any]:
    """What the times were taken on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": processor(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": load,
    }
