"""An analysis in the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import Comparison
from dsa.analysis.judgement.efficiency import FORMULA
from dsa.analysis.judgement.headroom import opponent
from dsa.analysis.output.cells import number, titled
from dsa.analysis.statistics.difference import Difference


def show(analysis: Analysis, out: Console) -> None:
    """The question, the verdict, the recommendation per length, the tables, the guards."""
    meta = analysis.prepared.meta
    out.print(f"[bold]{escape(meta.name)}[/]  {escape(meta.question)}")
    out.print(f"[bold]{analysis.answer}[/]: {escape(analysis.sentence)}")
    for best in analysis.best:
        out.print(f"  {escape(best.sentence)}")
    for table in (quality(analysis), verdicts(analysis), recommendations(analysis), pareto(analysis)):
        if table.row_count:
            out.print(table)
    if analysis.efficiency:
        out.print(efficiency(analysis), FORMULA)
    if analysis.scaling:
        out.print(scaling(analysis))
    for guard in analysis.guards:
        out.print(f"[yellow]{guard.name}[/] {escape(guard.sentence)}")


def spread(mean: float | None, interval: tuple[float, float] | None) -> str:
    """A mean with its interval."""
    bounds = "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"
    return number(mean) + bounds


def quality(analysis: Analysis) -> Table:
    """Both scales side by side, and the recovered share of the headroom on the primary metric."""
    metric = analysis.prepared.meta.metric
    recovered = {(h.label, h.seq_len): h for h in analysis.headroom if h.metric == metric}
    scales = list(dict.fromkeys(q.metric for q in analysis.qualities))
    by_place: dict[tuple[int, str], dict[str, str]] = {}
    for q in analysis.qualities:
        by_place.setdefault((q.seq_len, q.label), {})[q.metric] = f"{spread(q.mean, q.interval)} n{q.seeds}"
    heads = [f"{scale} [dim]{SCALES[scale].meaning}[/]" for scale in scales]
    table = titled(
        "Quality: mean and 95 % interval over seeds",
        "length",
        "condition",
        *heads,
        f"recovered [dim]0 = {opponent(analysis.prepared)}[/]",
    )
    for (seq_len, label), row in by_place.items():
        share = recovered.get((label, seq_len))
        last = spread(share.recovered, share.recovered_interval) if share else ""
        table.add_row(str(seq_len), escape(label), *(row.get(scale, "–") for scale in scales), last)
    return table


def verdicts(analysis: Analysis) -> Table:
    """Comparisons with the baseline, the primary metric first."""
    title = "Against the baseline: the sign-flip test decides, corrected by Holm within a length; the t test beside it"
    heads = ("length", "condition", "metric", "difference", "p", "p Holm", "p t test", "detectable", "seeds within",
             "success rate", "worst seed")  # fmt: skip
    table = titled(title, *heads, "verdict")
    for c in analysis.comparisons:
        table.add_row(*row_of(c))
    return table


def row_of(c: Comparison) -> list[str]:
    d = c.difference
    values = [number(v, 2) for v in (d.p, c.p, d.p_t, d.detectable)]
    seeds = (within(d), success(d), f"{d.worst:+.3g} (seed {d.worst_seed})")
    return [str(c.seq_len), escape(c.label), c.metric, spread(d.mean, d.interval), *values, *seeds, c.word]


def within(d: Difference) -> str:
    """How many seeds lie within the margin."""
    return "–" if d.within is None else f"{d.within} of {d.seeds}"


def success(d: Difference) -> str:
    """The share of seeds that lose no more than the margin, with its interval."""
    if d.success_rate is None or d.success_interval is None:
        return "–"
    low, high = d.success_interval
    return f"{d.success_rate:.0%} [{low:.0%}, {high:.0%}]"


def recommendations(analysis: Analysis) -> Table:
    """What to use per length, and what that rests on."""
    heads = ("length", "recommended", "", "best", analysis.prepared.meta.metric, "shown to lose nothing")
    table = titled("What to use per length", *heads)
    for b in analysis.best:
        if b.best is not None:
            cells = (
                b.recommended or "",
                b.standing or "",
                b.best,
                spread(b.mean, b.interval),
                ", ".join(b.lossless) or "none",
            )
            table.add_row(f"{b.seq_len} {b.context}".strip(), *(escape(cell) for cell in cells))
    return table


def pareto(analysis: Analysis) -> Table:
    """Who is on which front, and by whom the others are dominated."""
    table = titled("Pareto fronts", "length", "against", "condition", "quality", "cost", "on the front")
    for p in analysis.points:
        on = ("yes" if p.shown else "undecided") if p.on_front else f"no: {', '.join(p.dominated_by)}"
        values = (spread(p.quality, p.quality_interval), number(p.price), escape(on))
        table.add_row(str(p.seq_len), p.cost, escape(p.label), *values)
    return table


def efficiency(analysis: Analysis) -> Table:
    """Relative to the baseline."""
    heads = ("length", "condition", "parameters", "operations", "speed-up", "quality kept", "efficiency")
    table = titled("Relative to the baseline", *heads)
    for e in analysis.efficiency:
        values = (e.parameters, e.operations, e.speed_up, e.quality_kept, e.efficiency)
        table.add_row(str(e.seq_len), escape(e.label), *(number(value, 3) for value in values))
    return table


def scaling(analysis: Analysis) -> Table:
    """Slopes over doublings."""
    table = titled(
        "Per doubling: exponent of a cost, change of the quality difference", "condition", "what", "along", "slope"
    )
    for f in analysis.scaling:
        table.add_row(escape(f.label), f.what, f.along, spread(f.slope, f.interval))
    return table
