"""Times of a study's conditions taken alone, in turns: timing.json."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsa.analysis.inputs.timing import STALE, in_fresh_processes
from dsa.analysis.statistics.values import Array

WHAT = {"step_ms": "training step", "infer_ms": "forward pass of one row", "indexer_ms": "indexers in a forward pass"}


@dataclass(frozen=True)
class Gain:
    """How much less time a condition takes than its reference: 1 - time / reference's time.

    Args:
        ms, reference_ms: medians over turns [ms].
        turns: the gain in each turn; empty where only medians were kept.
        interval: from the least to the greatest gain of a turn, which for five turns and more holds the median gain
            with 94 % and more; None where only medians were kept.
        obstacle: why nothing may be concluded from it; None if something may.
    """

    ms: float
    reference_ms: float
    turns: Array
    obstacle: str | None

    @property
    def share(self) -> float:
        return 1 - self.ms / self.reference_ms

    @property
    def interval(self) -> tuple[float, float] | None:
        return (float(self.turns.min()), float(self.turns.max())) if len(self.turns) > 1 else None


@dataclass(frozen=True)
class Times:
    """The content of timing.json, by length."""

    record: dict[str, Any]

    def gain(self, label: str, reference: str, seq_len: int, what: str) -> Gain | None:
        """A condition's gain over its reference; None if either was not timed."""
        here = self.record.get(str(seq_len), {})
        times = here.get("times", {})
        if what not in times.get(label, {}) or what not in times.get(reference, {}):
            return None
        mine, theirs = (
            np.array([turn[what] for turn in here.get("turns", {}).get(one, [])]) for one in (label, reference)
        )
        turns = 1 - mine / theirs if len(mine) == len(theirs) else mine[:0]
        obstacle = "timed beside other work" if here.get("contended") else None
        if obstacle is None and not all(in_fresh_processes(self.record, one, seq_len) for one in (label, reference)):
            obstacle = STALE
        return Gain(times[label][what], times[reference][what], turns, obstacle)

    def machine(self) -> str:
        """Processor and cores on which the times were taken."""
        found = {
            f"{one['machine'].get('processor')}, {one['machine'].get('cores')} threads"
            for one in self.record.values()
            if one.get("machine")
        }
        return "; ".join(sorted(found)) or "a machine that was not recorded"
