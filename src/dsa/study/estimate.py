"""How long jobs will take and how much they will keep: counted operations, scaled by the jobs that were timed."""

import functools
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dsa.spec import Spec
from dsa.study.workers.claim import ENDED, read
from dsa.study.workers.places import JOBS
from dsa.training.fits import eval_rows, size_of

if TYPE_CHECKING:
    from dsa.study.jobs import Job

RATE = 4e10  # operations per second that predictions are told in; what is measured scales them
SIDE = 1024  # of the matrices whose product says how fast this machine is
REACHED = 0.5  # of that product's operations per second: what whole steps reach
OVERHEAD = 0.012  # seconds per layer and step that small matrices cost beside their operations
START = 2.0  # seconds until a stage's first step
JUDGE = 1.0  # seconds of a judgement beside its forward passes: the selection probed, a step measured
RESULT = 40e3  # bytes of a run folder: configuration, result, metrics


def predicted(job: "Job") -> float:
    """Seconds of a job at `RATE`, about."""
    joint = START + job.first.spec.recipe.sparse_steps * step(job.first.spec) if job.kind == "joint" else 0.0
    return making(job) + joint + sum(judging(run.spec) for run in job.runs)


def making(job: "Job") -> float:
    """Seconds of what a job makes, its runs apart."""
    if not job.makes:
        return 0.0
    spec = job.first.spec
    recipe, one = spec.recipe, step(spec)
    if job.kind == "cohort":  # no backward pass through the base; each indexer adds its own
        return START + recipe.warmup_steps * one * (0.4 + 0.15 * len(job.makes))
    return START + (recipe.dense_steps if job.kind == "base" else recipe.sparse_steps) * one


def step(spec: Spec) -> float:
    """Seconds of a training step."""
    size, rows = size_of(spec), spec.data.node["batch_size"]
    attention = 12 * size.layers * size.width * rows * spec.seq_len**2 / 2
    return (6 * size.parameters * rows * spec.seq_len + attention) / RATE + OVERHEAD * size.layers


def judging(spec: Spec) -> float:
    """Seconds of a run's judgements."""
    node = spec.data.node
    rows = node["eval_batches"] * eval_rows(spec)
    return JUDGE + 2 * step(spec) / 3 * rows / node["batch_size"]


def untimed(spec: Spec) -> float:
    """Measured over predicted time where no job has ended yet: by how fast this machine multiplies matrices."""
    device = "cuda" if spec.trainer.on_gpu else "cpu"
    return RATE / (REACHED * product_rate(torch.bfloat16 if spec.dtype == "bf16" else torch.float32, device))


@functools.cache
def product_rate(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a product of two matrices, the fastest of a few."""
    one, took = torch.ones(SIDE, SIDE, dtype=dtype, device=device), []
    for _ in range(4):
        begin = time.perf_counter()
        float((one @ one)[0, 0])  # read: a GPU has finished
        took.append(time.perf_counter() - begin)
    return 2 * SIDE**3 / min(took)


def kept(job: "Job") -> float:
    """Bytes that a job leaves, about."""
    spec = job.first.spec
    weights = 4.0 * size_of(spec).parameters
    copies = {"base": 0 if spec.given else 1, "control": 1, "joint": 1}.get(job.kind, 0)
    return copies * weights + 0.1 * weights * len(job.makes) * (job.kind == "cohort") + RESULT * len(job.runs)


def seconds(folder: Path) -> float | None:
    """What a job took [s]; None if it has not ended."""
    job = read(folder / ENDED)
    return max(0.0, job["ended"] - job["started"]) if "ended" in job else None


def done_since(folders: Iterable[Path], begin: float) -> list[float]:
    """What each of these jobs took that began after a moment [s]."""
    return [
        took for folder in folders
        if read(folder / ENDED).get("started", 0.0) >= begin and (took := seconds(folder)) is not None
    ]  # fmt: skip


@dataclass(frozen=True)
class Scales:
    """Measured over predicted time of the jobs that ended below a folder, by kind of job."""

    ratios: dict[str, list[float]]

    @property
    def known(self) -> bool:
        """Whether any job was timed."""
        return bool(self.ratios)

    def of(self, kind: str) -> float:
        """The median of a kind; of all where none of the kind has ended; 1 where nothing has."""
        every = [ratio for own in self.ratios.values() for ratio in own]
        return statistics.median(self.ratios.get(kind, every) or [1.0])


def scales(outputs: Path) -> Scales:
    """What the jobs that ended below a folder say."""
    ratios: dict[str, list[float]] = {}
    for folder in (outputs / JOBS).glob("*-*"):
        took = seconds(folder)
        known = [read(path).get("predicted", 0.0) for path in folder.glob("*.json") if path.name != ENDED]
        if took is not None and any(known):
            ratios.setdefault(folder.name.split("-")[0], []).append(took / max(known))
    return Scales(ratios)
