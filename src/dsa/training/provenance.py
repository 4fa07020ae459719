"""Where a result came from: code, packages, machine."""

import functools
import hashlib
import importlib.util
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

# What only shows or compares results.
NO_NUMBERS = (
    "bench/",
    "analysis/",
    "inspection/",
    "study/",
    "frame.py",
    "training/console.py",
    "training/dashboard.py",
    "training/maps.py",
    "training/mirrors.py",
)
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf", "wandb", "datasets", "numpy")


def provenance(code: str) -> dict[str, Any]:
    """Git commit, package versions and machine, beside the fingerprint of the code."""
    return {
        "git": git_commit(),
        "code": code,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


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
def code_fingerprint(packages: tuple[str, ...]) -> str:
    """Hash of the source that shapes a run's numbers, this package's and the user's: results of other code are stale.

    It is that of the first time a process asks, whatever happens to the files meanwhile.

    Args:
        packages: the user's own (allow_targets).
    """
    own = Path(__file__).resolve().parents[1]
    content = hashlib.sha256()
    for root in [own, *(folder for name in packages for folder in source_folders(name))]:
        for path in sorted(root.rglob("*")):
            part = path.relative_to(root).as_posix()
            if path.suffix in (".py", ".cpp", ".h") and not (root == own and part.startswith(NO_NUMBERS)):
                content.update(part.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


def source_folders(package: str) -> list[Path]:
    """Where a package's source lies."""
    found = importlib.util.find_spec(package)
    return [Path(place) for place in (found.submodule_search_locations or [])] if found else []


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
