"""The efficiency table as the field draws it: parameters, speed and quality relative to the baseline."""

from dataclasses import dataclass

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.speed import speed

FORMULA = (
    "quality kept = (unigram - loss) / (unigram - baseline loss); speed-up = baseline step / step; "
    "efficiency = speed-up x quality kept. It decides nothing."
)


@dataclass(frozen=True)
class Efficiency:
    """One condition relative to its baseline; each is a ratio of means over the seeds both have, or None.

    Args:
        parameters: indexer parameters.
        operations: of attention with its indexer, counted.
        speed_up: measured, a ratio of medians over turns; None where the times may not be ranked.
        quality_kept, efficiency: None where nothing may be ranked.
    """

    label: str
    reference: str
    seq_len: int
    metric: str
    parameters: float | None
    operations: float | None
    speed_up: float | None
    quality_kept: float | None
    efficiency: float | None


def efficiencies(prepared: Prepared, metric: str, places: set[tuple[int, str]]) -> list[Efficiency]:
    """The table, on a loss; a share of right answers has its loss stand in.

    Args:
        places: lengths and contexts in which ranking is allowed; elsewhere no quality is said to be kept.
    """
    metric = "swap_val_loss" if metric.startswith("swap_") else "val_loss"
    return [
        efficiency(prepared, label, seq_len, metric, (seq_len, prepared.meta.context(label)) in places)
        for seq_len in prepared.lengths
        for label in prepared.conditions(seq_len)
    ]


def efficiency(prepared: Prepared, label: str, seq_len: int, metric: str, rankable: bool) -> Efficiency:
    """One row."""
    reference = prepared.meta.reference(label)
    parameters, operations = (
        relative(prepared, label, reference, seq_len, name) for name in ("indexer_params", "flops")
    )
    step = speed(prepared, label, seq_len).ratio
    mine, theirs = (prepared.quality(one, seq_len, SCALES[metric]) for one in (label, reference))
    unigram = prepared.column(label, seq_len, "unigram_loss")
    seeds = mine.index.intersection(theirs.index).intersection(unigram.index)
    base = (unigram - theirs).loc[seeds].mean() if len(seeds) else 0.0
    kept = float((unigram - mine).loc[seeds].mean() / base) if rankable and base > 0 else None
    speed_up = 1 / step.value if step else None
    return Efficiency(
        label=label,
        reference=reference,
        seq_len=seq_len,
        metric=metric,
        parameters=parameters,
        operations=operations,
        speed_up=speed_up,
        quality_kept=kept,
        efficiency=speed_up * kept if speed_up is not None and kept is not None else None,
    )


def relative(prepared: Prepared, label: str, reference: str, seq_len: int, name: str) -> float | None:
    """What is counted over the reference's; None if either was not."""
    mine, theirs = (cost_of(prepared, one, seq_len, COSTS[name]) for one in (label, reference))
    seeds = mine.index.intersection(theirs.index)
    if not len(seeds) or theirs.loc[seeds].mean() <= 0:
        return None
    return float(mine.loc[seeds].mean() / theirs.loc[seeds].mean())
