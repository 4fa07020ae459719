"""Whether a condition takes less time than its baseline: a training step, timed alone and in turns."""

from dataclasses import dataclass
from typing import Literal

from dsa.analysis.inputs.cost import COSTS, cost_of, speed_obstacle
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.timing import Ratio, ratio

STEP = COSTS["step_ms"]


@dataclass(frozen=True)
class Speed:
    """A condition's time over its baseline's at one length.

    Args:
        ratio: of the medians over turns; None where either may not be ranked.
        obstacle: why not.
    """

    label: str
    reference: str
    seq_len: int
    ratio: Ratio | None
    obstacle: str | None

    @property
    def shown(self) -> Literal["less", "more"] | None:
        """What every turn says; None where turns differ, or there are none."""
        if self.ratio is None or self.ratio.interval is None:
            return None
        low, high = self.ratio.interval
        return "less" if high < 1 else "more" if low > 1 else None

    @property
    def sentence(self) -> str:
        """How much less or more, with its interval over turns."""
        who = f"{self.label} at {self.seq_len}"
        if self.ratio is None:
            return f"{who}: {self.obstacle or 'not timed'}."
        return f"{who}: {saved(self.ratio)} of {self.reference}'s time saved."


def saved(found: Ratio) -> str:
    """A share of the time in percent, with its interval: from the least turn to the greatest."""
    told = f"{100 * (1 - found.value):.0f}"
    if found.interval is not None:
        told += " [{:.0f}, {:.0f}]".format(*(100 * (1 - end) for end in reversed(found.interval)))
    return f"{told} %"


def speeds(prepared: Prepared) -> list[Speed]:
    """Each condition but the baseline, at each length."""
    return [
        speed(prepared, label, seq_len)
        for seq_len in prepared.lengths
        for label in prepared.conditions(seq_len)
        if label != prepared.meta.reference(label)
    ]


def speed(prepared: Prepared, label: str, seq_len: int) -> Speed:
    """One of them."""
    reference = prepared.meta.reference(label)
    obstacles = (speed_obstacle(prepared, one, seq_len) for one in (label, reference))
    found = ratio(*(cost_of(prepared, one, seq_len, STEP) for one in (label, reference)))
    return Speed(label, reference, seq_len, found, next(filter(None, obstacles), None))
