"""The tables of the report."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import Comparison
from dsa.analysis.judgement.efficiency import FORMULA
from dsa.analysis.judgement.headroom import MEANINGS
from dsa.analysis.output.terminal import number, spread, success, within

Interval = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the number by which it sorts, if it has one."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Grid:
    """A table. name: of the file that its button downloads; folded: shown on request."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = False


def grids(analysis: Analysis) -> list[Grid]:
    """Every table that has rows."""
    every = (
        best,
        contrasts,
        confirmation,
        regret,
        quality,
        comparisons,
        to_dense,
        by_row,
        pareto,
        headroom,
        efficiency,
        scaling,
        runs,
    )
    return [grid for one in every if (grid := one(analysis)).rows]


def texts(*values: object) -> tuple[Cell, ...]:
    return tuple(Cell(str(value)) for value in values)


def whole(value: int) -> Cell:
    return Cell(str(value), float(value))


def measured(value: float | None, interval: Interval | None = None, digits: int = 4) -> Cell:
    """A number with its interval."""
    if value is not None and abs(value) >= 1e4:
        return Cell(f"{value:,.0f}", value)
    return Cell(spread(value, interval) if interval else number(value, digits), value)


def best(analysis: Analysis) -> Grid:
    """The answer per length."""
    columns = ("length", "recommended", "standing", "best", analysis.prepared.meta.metric, "shown to lose nothing")
    rows = [
        (Cell(f"{b.seq_len} {b.context}".strip(), b.seq_len), *texts(b.recommended, b.standing, b.best),
         measured(b.mean, b.interval), *texts(", ".join(b.lossless) or "none"))
        for b in analysis.best
        if b.best is not None
    ]  # fmt: skip
    note = (
        "Recommended: the cheapest that is shown to lose nothing against the baseline, or the baseline where nothing "
        "cheaper is; if nothing is shown to lose nothing, the best mean."
    )
    return Grid("best", "What to use per length", columns, tuple(rows), note)


def contrasts(analysis: Analysis) -> Grid:
    """The planned contrasts."""
    columns = ("contrast", "length", "less length", "difference", "low", "high", "p Holm", "seeds", "verdict")
    rows = [
        (*texts(c.name), whole(c.seq_len), Cell("–") if c.since is None else whole(c.since),
         measured(c.difference.mean), *bounds(c.difference.interval), measured(c.p, digits=2),
         whole(c.difference.seeds), *texts("differs" if c.differs else "not shown to differ"))
        for c in analysis.contrasts
    ]  # fmt: skip
    note = (
        "Means (or sums) of several conditions less those of others, within a seed, on "
        f"{analysis.prepared.meta.metric}; "
        "named before the study ran, corrected by Holm over all of them. With two lengths: how much it changes between "
        "them."
    )
    return Grid("contrasts", "Planned contrasts", columns, tuple(rows), note)


def regret(analysis: Analysis) -> Grid:
    """What one condition loses against the best of each length."""
    lengths = sorted({length for one in analysis.regret for length in one.by_length})
    columns = ("condition", *(f"at {length}" for length in lengths), "largest", "p", "one for all lengths")
    rows = [
        (*texts(f"{one.label} {one.context}".strip()), *(measured(one.by_length.get(n), digits=3) for n in lengths),
         measured(one.largest, digits=3), measured(one.p, digits=2), *texts("shown" if one.everywhere else "not shown"))
        for one in analysis.regret
    ]  # fmt: skip
    note = (
        "Mean less the best mean of the length. Shown: within the margin of every other condition at every length "
        "(intersection-union test)."
    )
    return Grid("regret", "Regret: is there one for all lengths?", columns, tuple(rows), note, len(rows) > 12)


def quality(analysis: Analysis) -> Grid:
    """Every condition and control on every scale."""
    rows = [
        (whole(q.seq_len), *texts(q.label, q.kind, q.metric), measured(q.mean), *bounds(q.interval), whole(q.seeds))
        for q in analysis.qualities
    ]
    columns = ("length", "condition", "kind", "metric", "mean", "low", "high", "seeds")
    scales = dict.fromkeys(q.metric for q in analysis.qualities)
    note = "; ".join(f"{metric}: {SCALES[metric].meaning} [{SCALES[metric].unit}]" for metric in scales)
    return Grid("quality", "Quality: mean and 95 % BCa interval over seeds", columns, tuple(rows), note, len(rows) > 60)


def bounds(interval: Interval | None) -> tuple[Cell, Cell]:
    low, high = interval or (None, None)
    return measured(low), measured(high)


def comparisons(analysis: Analysis) -> Grid:
    """With the baseline."""
    primary = analysis.prepared.meta.metric
    rows = [versus(c) for c in sorted(analysis.comparisons, key=lambda c: c.metric != primary)]
    note = (
        "Condition less baseline. The sign-flip test decides, corrected by Holm within a length; the t test decides "
        "nothing. Success: a seed that loses no more than the margin, with Clopper and Pearson's interval. "
        f"{primary} decides the study."
    )
    return Grid("comparisons", "Against the baseline", VERSUS, tuple(rows), note, len(rows) > 60)


def to_dense(analysis: Analysis) -> Grid:
    """With dense attention."""
    rows = [versus(c) for c in analysis.to_dense]
    return Grid("to_dense", "Against dense attention", VERSUS, tuple(rows), "Condition less dense attention.", True)


VERSUS = (
    "length", "condition", "against", "metric", "difference", "low", "high", "p", "p Holm", "p t test", "detectable",
    "seeds", "within margin", "success rate", "worst", "worst seed", "verdict",
)  # fmt: skip


def by_row(analysis: Analysis) -> Grid:
    """Over other held-out rows too."""
    rows = [
        (whole(one.seq_len), *texts(one.label, one.reference), measured(one.found.mean), *bounds(one.found.interval),
         Cell("–") if one.found.within is None else Cell(f"{one.found.within:.0%}", one.found.within),
         whole(one.found.seeds), whole(one.found.samples))
        for one in analysis.sampled
    ]  # fmt: skip
    columns = ("length", "condition", "against", "difference", "low", "high", "within seeds", "seeds", "rows")
    note = (
        f"{analysis.prepared.meta.metric}: condition less the other on the same held-out rows, with a 95 % interval of "
        "other seeds and other rows of such text. Within seeds: share of the variance of a single difference that lies "
        "between rows of one seed; where it is large more rows (data.eval_batches) help, else more seeds. Decides "
        "nothing."
    )
    return Grid("by_row", "Over other rows too", columns, tuple(rows), note, len(rows) > 60)


def confirmation(analysis: Analysis) -> Grid:
    """After joint training, with the baseline and with dense attention that was trained as long."""
    found = analysis.confirmation
    rows = [] if found is None else [versus(c) for c in (*found.comparisons, *found.to_dense)]
    note = "Where finalists were chosen these seeds took no part in it. Dense: trained as long."
    if found is not None and found.seeds:
        note = f"Seeds {found.seeds[0]} to {found.seeds[-1]}. {note}"
        note += "".join(f" {guard.name.capitalize()}: {guard.sentence}" for guard in found.guards)
    return Grid("confirmation", "After joint training", VERSUS, tuple(rows), note, len(rows) > 60)


def versus(c: Comparison) -> tuple[Cell, ...]:
    """One comparison."""
    d = c.difference
    small = [measured(value, digits=2) for value in (d.p, c.p, d.p_t, d.detectable)]
    names = texts(c.label, c.reference, c.metric)
    seeds = (whole(d.seeds), Cell(within(d), d.within), Cell(success(d), d.success_rate), measured(d.worst, digits=3),
             whole(d.worst_seed))  # fmt: skip
    return whole(c.seq_len), *names, measured(d.mean), *bounds(d.interval), *small, *seeds, Cell(c.word)


def pareto(analysis: Analysis) -> Grid:
    """Every point on every front."""
    rows = []
    for p in analysis.points:
        on = ("yes" if p.shown else "undecided") if p.on_front else "no"
        values = (measured(p.quality), *bounds(p.quality_interval), measured(p.price), *bounds(p.price_interval))
        rows.append((whole(p.seq_len), *texts(p.label, p.cost), *values, *texts(on, ", ".join(p.dominated_by))))
    columns = ("length", "condition", "cost", "quality", "low", "high", "price", "price low", "price high",
               "on the front", "dominated by")  # fmt: skip
    return Grid("pareto", "Pareto fronts", columns, tuple(rows), "", len(rows) > 60)


def headroom(analysis: Analysis) -> Grid:
    """What there was to gain, and what was gained."""
    rows = [
        (whole(h.seq_len), *texts(h.label, h.metric), measured(h.headroom), measured(h.recovered),
         *bounds(h.recovered_interval), whole(h.seeds))
        for h in analysis.headroom
    ]  # fmt: skip
    columns = ("length", "condition", "metric", "headroom", "recovered", "low", "high", "seeds")
    kinds = sorted({MEANINGS[h.opponent] for h in analysis.headroom})
    opponent = " or ".join(kinds) or "a selection that learns nothing"
    note = f"Headroom: what {opponent} loses over dense attention. Recovered: 0 is no better than that, 1 is dense."
    return Grid("headroom", "Headroom and the share recovered", columns, tuple(rows), note, True)


def efficiency(analysis: Analysis) -> Grid:
    """Relative to the baseline."""
    rows = [
        (whole(e.seq_len), *texts(e.label), *(measured(value, digits=3) for value in
         (e.parameters, e.operations, e.speed_up, e.quality_kept, e.efficiency)))
        for e in analysis.efficiency
    ]  # fmt: skip
    columns = ("length", "condition", "parameters", "operations", "speed-up", "quality kept", "efficiency")
    return Grid("efficiency", "Relative to the baseline", columns, tuple(rows), FORMULA, True)


def scaling(analysis: Analysis) -> Grid:
    """Slopes over doublings."""
    rows = [
        (*texts(f.label, f.what, f.along), measured(f.slope), *bounds(f.interval), whole(f.seeds))
        for f in analysis.scaling
    ]
    columns = ("condition", "what", "along", "slope", "low", "high", "seeds")
    note = "Exponent of a cost, or change of the quality difference, per doubling."
    return Grid("scaling", "Scaling", columns, tuple(rows), note, True)


RUNS = (
    "label", "kind", "seq_len", "seed", "val_loss", "swap_val_loss", "val_accuracy", "dense_val_loss", "density",
    "selection.mean.mass", "selection.mean.kl", "selection.mean.mass_asked", "selection.mean.kl_asked",
    "selection.mean.recall", "time.step_ms", "time.contended", "run_id",
)  # fmt: skip


def runs(analysis: Analysis) -> Grid:
    """Every finished run, its main values; the rest is in results.csv."""
    frame = analysis.prepared.runs
    columns = [name for name in RUNS if name in frame and frame[name].notna().any()]
    rows = [tuple(any_cell(value) for value in row) for row in frame[columns].itertuples(index=False)]
    return Grid("runs", "Runs", tuple(columns), tuple(rows), "All values are in results.csv and results.parquet.", True)


def any_cell(value: object) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell("–" if value is None else str(value))
    return (
        Cell("–") if pd.isna(value) else Cell(f"{value:.5g}" if isinstance(value, float) else str(value), float(value))
    )
