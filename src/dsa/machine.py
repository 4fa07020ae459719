"""What this process may use of the machine, and how its threads wait for each other. Imports no torch."""

import os
from collections.abc import Iterator
from pathlib import Path

WAITING = "OMP_WAIT_POLICY"
GROUPS = Path("/sys/fs/cgroup")


def cores() -> float:
    """Cores that this process may use: those of the machine that it may run on, and no more than its container gets."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(own), *quotas(GROUPS)])


def quotas(root: Path) -> Iterator[float]:
    """Cores that the control groups of a container grant, of version 2 and 1; none where there is no limit.

    Args:
        root: where the control groups are mounted; a container sees its own there.
    """
    for limit, period in (
        (root / "cpu.max", None),
        (root / "cpu" / "cpu.cfs_quota_us", root / "cpu" / "cpu.cfs_period_us"),
    ):
        try:
            given = limit.read_text().split() + ([] if period is None else period.read_text().split())
            quota, every = int(given[0]), int(given[1])
        except (OSError, ValueError, IndexError):  # no such group, or `max`
            continue
        if quota > 0 and every > 0:
            yield quota / every


def wait_passively() -> None:
    """Let threads sleep while they wait for each other, where the machine is loaded; before torch is imported.

    By default a waiting thread keeps its core busy, also where the one it waits for needs it. No number depends on it.
    """
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > cores() / 4:
        os.environ.setdefault(WAITING, "passive")
