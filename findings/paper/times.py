"""Times of a study's conditions taken alone, in turns: timing.json."""

from dataclasses import dataclass
from typing import Any

from dsa.analysis.inputs.cost import speed_obstacle
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.timing import Ratio, ratio, turns

WHAT = {"step_ms": "training step", "infer_ms": "forward pass of one row", "indexer_ms": "indexers in a forward pass"}


@dataclass(frozen=True)
class Gain:
    """How much less time a condition takes than its reference: 1 - time / reference's time.

    Args:
        ms, reference_ms: medians over turns [ms].
        of: the ratio of both, as everything that is said of times has it.
        obstacle: why nothing may be concluded from it; None if something may.
    """

    ms: float
    reference_ms: float
    of: Ratio
    obstacle: str | None

    @property
    def share(self) -> float:
        return 1 - self.of.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """From the least gain of a turn to the greatest; None where only medians were kept."""
        return None if self.of.interval is None else (1 - self.of.interval[1], 1 - self.of.interval[0])


@dataclass(frozen=True)
class Times:
    """What was timed of a study."""

    prepared: Prepared

    @property
    def record(self) -> dict[str, Any]:
        """The content of timing.json, by length."""
        return self.prepared.timing

    def gain(self, label: str, reference: str, seq_len: int, what: str) -> Gain | None:
        """A condition's gain over its reference; None if either was not timed."""
        times = self.record.get(str(seq_len), {}).get("times", {})
        if what not in times.get(label, {}) or what not in times.get(reference, {}):
            return None
        obstacles = (speed_obstacle(self.prepared, one, seq_len) for one in (label, reference))
        obstacle = next((told for told in obstacles if told is not None), None)
        mine, theirs = (turns(self.record, one, seq_len, what) for one in (label, reference))
        found = ratio(mine, theirs) or Ratio(times[label][what] / times[reference][what], None)
        return Gain(times[label][what], times[reference][what], found, obstacle)

    def machine(self) -> str:
        """Processor and threads by which the times were taken."""
        found = {
            f"{one['machine'].get('processor')}, {one['machine'].get('cores')} threads"
            for one in self.record.values()
            if one.get("machine")
        }
        return "; ".join(sorted(found)) or "a machine that was not recorded"
