"""What a condition costs: operations, step time, indexer parameters, memory."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.timing import STALE, in_fresh_processes, turns


@dataclass(frozen=True)
class Cost:
    """One kind of cost; less is better.

    Args:
        columns: of a run's result, whose sum it is.
        timed: it has none: of times, those taken alone count, not those of runs, which may have had company.
        of_attention: dense attention has it too.
    """

    name: str
    columns: tuple[str, ...]
    unit: str
    timed: bool = False
    of_attention: bool = True


DENSE_FLOPS = "flops.dense_attention"
SPARSE = ("flops.indexer", "flops.select", "flops.sparse_attention")
COSTS = {
    cost.name: cost
    for cost in (
        Cost("flops", SPARSE, "operations a row, attention with its indexer"),
        Cost("step_ms", (), "ms", timed=True),
        Cost("indexer_params", ("params.indexer",), "parameters", of_attention=False),
        Cost("memory_mb", ("memory.peak_mb",), "MB"),
    )
}


def cost_of(prepared: Prepared, label: str, seq_len: int, cost: Cost) -> pd.Series:
    """A condition's cost by seed, a time by turn; empty if unknown or not to be ranked."""
    if cost.timed:
        alone = turns(prepared.timing, label, seq_len, cost.name)
        return alone.iloc[:0] if speed_obstacle(prepared, label, seq_len) else alone
    if prepared.meta.control(label) == "dense" and cost.name == "flops":
        return prepared.column(label, seq_len, DENSE_FLOPS)
    parts = [prepared.column(label, seq_len, name) for name in cost.columns]
    return pd.concat(parts, axis=1, join="inner").sum(axis=1)


def speed_obstacle(prepared: Prepared, label: str, seq_len: int) -> str | None:
    """Why a condition's times may not be ranked; None if they may."""
    rows = prepared.rows(label, seq_len)
    if prepared.meta.control(label) != "dense" and not always(rows, "speed_is_real", True):
        return "attention ran under a mask, or its number format was simulated"
    command = f"python -m dsa.study time outputs/{prepared.meta.name}"
    if len(turns(prepared.timing, label, seq_len, "step_ms")):
        fresh = in_fresh_processes(prepared.timing, label, seq_len)
        return None if fresh else f"{STALE} ({command} times them again)"
    if prepared.timing.get(str(seq_len), {}).get("contended"):
        return f"other processes were busy while steps were timed ({command} times them again)"
    return f"steps were not timed alone, after training ({command} does that)"


def always(rows: pd.DataFrame, column: str, value: bool) -> bool:
    return column in rows and bool(rows[column].eq(value).all())
