"""A study's main tables, as data frames: written as CSV, shown as Markdown."""

from collections.abc import Sequence

import pandas as pd

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import Comparison
from dsa.analysis.output.terminal import within
from paper.markdown import number
from paper.times import Times

Bounds = tuple[float, float] | None


def bounds(name: str, interval: Bounds) -> dict[str, float | None]:
    """The two ends of an interval as columns."""
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def quality(analysis: Analysis) -> pd.DataFrame:
    """Every condition and control on every scale, with what it recovers of the headroom and what it costs."""
    prepared = analysis.prepared
    recovered = {(h.label, h.seq_len, h.metric): h for h in analysis.headroom}
    rows = []
    for q in analysis.qualities:
        share = recovered.get((q.label, q.seq_len, q.metric))
        cost = {name: cost_of(prepared, q.label, q.seq_len, COSTS[name]) for name in ("indexer_params", "flops")}
        rows.append(
            {
                "length": q.seq_len, "condition": q.label, "kind": q.kind, "metric": q.metric, "seeds": q.seeds,
                "mean": q.mean, **bounds("mean", q.interval),
                "recovered": share.recovered if share else None,
                **bounds("recovered", share.recovered_interval if share else None),
                **{name: float(values.mean()) if len(values) else None for name, values in cost.items()},
                **selected(analysis, q.label, q.seq_len, q.metric),
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in SELECTED if name in frame and frame[name].isna().all()])


SELECTED = ("mass", "kl", "mass_asked", "kl_asked")
"""What the words of a page call shares of attention and divergences, over all queries and over those asked."""


def selected(analysis: Analysis, label: str, seq_len: int, metric: str) -> dict[str, float]:
    """Means over seeds of what was selected, in the state of the model that a metric judges; NaN what has none."""
    prefix = "swap_selection.mean." if metric.startswith("swap_") else "selection.mean."
    columns = {name: analysis.prepared.column(label, seq_len, prefix + name) for name in SELECTED}
    return {name: float(values.mean()) for name, values in columns.items()}


def comparisons(analysis: Analysis) -> pd.DataFrame:
    """Every condition against its baseline."""
    return compared(analysis.comparisons)


def confirmation(analysis: Analysis) -> pd.DataFrame:
    """After joint training, against the baseline and against dense attention that was trained as long."""
    found = analysis.confirmation
    return compared([] if found is None else [*found.comparisons, *found.to_dense])


def compared(every: Sequence[Comparison]) -> pd.DataFrame:
    """A comparison a row."""
    return pd.DataFrame(
        {
            "length": c.seq_len, "condition": c.label, "reference": c.reference, "metric": c.metric,
            "seeds": c.difference.seeds, "difference": c.difference.mean,
            **bounds("difference", c.difference.interval),
            "p_holm": c.p, "p_t_test": c.difference.p_t, "p_no_loss_holm": c.p_no_loss,
            "margin": c.margin, "detectable": c.difference.detectable, "within": within(c.difference),
            "success_rate": c.difference.success_rate, **bounds("success_rate", c.difference.success_interval),
            "worst": c.difference.worst, "worst_seed": c.difference.worst_seed, "verdict": c.word,
        }
        for c in every
    )  # fmt: skip


def by_row(analysis: Analysis) -> pd.DataFrame:
    """Every condition against its baseline and dense attention, with intervals of other seeds and other rows."""
    return pd.DataFrame(
        {
            "length": one.seq_len, "condition": one.label, "reference": one.reference, "metric": one.metric,
            "seeds": one.found.seeds, "rows": one.found.samples, "difference": one.found.mean,
            **bounds("difference", one.found.interval), "within seeds": one.found.within,
        }
        for one in analysis.sampled
    )  # fmt: skip


def contrasts(analysis: Analysis) -> pd.DataFrame:
    """The planned contrasts."""
    return pd.DataFrame(
        {
            "contrast": c.name, "length": c.seq_len, "less length": c.since, "metric": c.metric,
            "seeds": c.difference.seeds, "difference": c.difference.mean,
            **bounds("difference", c.difference.interval), "p_holm": c.p, "differs": c.differs,
        }
        for c in analysis.contrasts
    ).convert_dtypes()  # fmt: skip


def regret(analysis: Analysis) -> pd.DataFrame:
    """What one condition loses against the best of each length; nothing where there is one length."""
    return pd.DataFrame(
        {
            "condition": one.label, "metric": one.metric,
            **{f"at {length}": value for length, value in one.by_length.items()},
            "largest": one.largest, "p": one.p, "one for all lengths": one.everywhere,
        }
        for one in analysis.regret
        if len(one.by_length) > 1
    )  # fmt: skip


def scaling(analysis: Analysis) -> pd.DataFrame:
    """Slopes over doublings of the length or of the model's parameters, by seed."""
    return pd.DataFrame(
        {
            "condition": fit.label, "what": fit.what, "along": fit.along,
            "levels": ", ".join(f"{level:g}" for level in fit.levels), "seeds": fit.seeds,
            "slope": fit.slope, **bounds("slope", fit.interval),
        }
        for fit in analysis.scaling
    )  # fmt: skip


def best(analysis: Analysis) -> pd.DataFrame:
    """What to use per length, the best mean, and what was shown to lose nothing against the baseline."""
    return pd.DataFrame(
        {
            "length": b.seq_len, "recommended": b.recommended, "standing": b.standing, "best": b.best, "mean": b.mean,
            **bounds("mean", b.interval), "shown to lose nothing": ", ".join(b.lossless) or "none",
        }
        for b in analysis.best
        if b.best is not None
    )  # fmt: skip


def times(analysis: Analysis, taken: Times) -> pd.DataFrame:
    """Times taken alone, in turns [ms]; empty if none were."""
    return pd.DataFrame(
        {"length": int(length), "condition": label, **row, "contended": one.get("contended")}
        for length, one in taken.record.items()
        for label, row in one.get("times", {}).items()
    )


TABLES = {
    "contrasts": contrasts, "regret": regret, "quality": quality, "comparisons": comparisons, "by_row": by_row,
    "confirmation": confirmation, "best": best, "scaling": scaling,
}  # fmt: skip


def joined(frame: pd.DataFrame) -> pd.DataFrame:
    """Means with their bounds in one cell, for reading; empty cells for what is not there."""
    out = pd.DataFrame(index=frame.index)
    for name in frame:
        if str(name).endswith(("_low", "_high")):
            continue
        column = frame[name]
        if pd.api.types.is_float_dtype(column):
            cells = [number(None if pd.isna(v) else float(v), 4) for v in column]
            if f"{name}_low" in frame:
                ends = zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
                cells = [
                    f"{cell} [{number(low, 4)}, {number(high, 4)}]" if pd.notna(low) else cell
                    for cell, (low, high) in zip(cells, ends, strict=True)
                ]
            out[name] = cells
        else:
            out[name] = column.astype(str)
    return out
