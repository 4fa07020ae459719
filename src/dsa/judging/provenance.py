"""Where a number came from: code, packages, machine."""

import functools
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "wandb", "datasets", "numpy")


def provenance(code: str) -> dict[str, Any]:
    """Git commit, package versions, machine and threads of this process, beside the fingerprint of the code."""
    return {
        "git": git_commit(),
        "code": code,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": dict(packages()),
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


@functools.cache
def packages() -> tuple[tuple[str, str], ...]:
    """Names and versions; each is read from files."""
    return tuple((name, version(name)) for name in PACKAGES)


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout this package lies in, with -dirty if files differ; None outside a checkout."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@functools.cache
def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
