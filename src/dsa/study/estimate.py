"""How long runs will take: counted operations, scaled by the runs that were timed."""

import statistics
from collections.abc import Iterable

from dsa.study.applicable import parameters
from dsa.study.claim import CLAIM, JOB, read
from dsa.study.plan import PlannedRun
from dsa.training.result import FILE

RATE = 4e10  # operations per second where nothing was timed yet: two CPU cores
OVERHEAD = 0.012  # seconds per layer and step that small matrices cost beside their operations


def predicted(run: PlannedRun) -> float:
    """Seconds of a run on two CPU cores, about."""
    model, rows = run.template.model, run.template.data.batch_size
    tokens = rows * run.seq_len
    attention = 12 * model.layers * model.d_model * rows * run.seq_len**2 / 2
    per_step = (6 * parameters(run.template) * tokens + attention) / RATE + OVERHEAD * model.layers
    return 5.0 + run.steps * per_step


def seconds(run: PlannedRun) -> float | None:
    """What a finished run took [s]; None if no sweep trained it."""
    job = read(run.folder / CLAIM) or read(run.folder / JOB)  # the result is written before the claim is given back
    result = run.folder / FILE
    if "started" not in job or not result.exists():
        return None
    return max(0.0, result.stat().st_mtime - job["started"])


def trained_since(runs: Iterable[PlannedRun], begin: float) -> list[float]:
    """What each of these runs took that began after a moment [s]."""
    return [took for run in runs if read(run.folder / JOB).get("started", 0.0) >= begin and (took := seconds(run))]


def scale(runs: Iterable[PlannedRun]) -> float:
    """Measured over predicted time, the median over the finished among these runs; 1 if there is none."""
    ratios = [took / predicted(run) for run in runs if (took := seconds(run)) is not None]
    return statistics.median(ratios) if ratios else 1.0
