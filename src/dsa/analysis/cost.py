"""What a condition costs: operations, step time, indexer parameters, memory."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.prepare import Prepared
from dsa.analysis.timing import turns


@dataclass(frozen=True)
class Cost:
    """One kind of cost; less is better."""

    name: str
    columns: tuple[str, ...]
    unit: str
    timed: bool = False


SPARSE = ("flops.indexer", "flops.select", "flops.sparse_attention")
COSTS = {
    cost.name: cost
    for cost in (
        Cost("flops", SPARSE, "operations a row, attention with its indexer"),
        Cost("step_ms", ("time.step_ms",), "ms", timed=True),
        Cost("indexer_params", ("params.indexer",), "parameters"),
        Cost("memory_mb", ("memory.peak_mb",), "MB"),
    )
}


def cost_of(prepared: Prepared, label: str, seq_len: int, cost: Cost) -> pd.Series:
    """A condition's cost by seed, a time by turn if it was taken in turns; empty if unknown or not to be ranked."""
    if cost.timed and speed_obstacle(prepared, label, seq_len):
        return pd.Series(dtype=float)
    if cost.timed and len(alone := turns(prepared.timing, label, seq_len, cost.name)):
        return alone
    if prepared.meta.control(label) == "dense" and cost.name == "flops":
        return prepared.column(label, seq_len, "flops.dense_attention")
    parts = [prepared.column(label, seq_len, name) for name in cost.columns]
    return pd.concat(parts, axis=1, join="inner").sum(axis=1)


def speed_obstacle(prepared: Prepared, label: str, seq_len: int) -> str | None:
    """Why a condition's times may not be ranked; None if they may."""
    rows = prepared.rows(label, seq_len)
    if prepared.meta.control(label) != "dense" and not always(rows, "speed_is_real", True):
        return "attention ran under a mask, or its number format was simulated"
    if len(turns(prepared.timing, label, seq_len, "step_ms")):
        return None
    if prepared.column(label, seq_len, "time.step_ms").empty:
        return "its steps were not timed"
    if not always(rows, "time.contended", False):
        return "timed beside other work"
    if len(machines(prepared)) > 1:
        return "the study's runs were timed on different machines"
    return None


def always(rows: pd.DataFrame, column: str, value: bool) -> bool:
    return column in rows and bool(rows[column].eq(value).all())


def machines(prepared: Prepared) -> list[str]:
    """The machines on which a study's runs were timed."""
    columns = [name for name in prepared.runs if str(name).startswith("provenance.machine.")]
    rows = prepared.runs[columns].drop_duplicates().itertuples(index=False)
    return sorted({" · ".join(str(value) for value in row if pd.notna(value)) for row in rows})
