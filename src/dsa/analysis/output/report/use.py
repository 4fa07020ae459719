"""What to use at each length, and what it costs."""

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.best import Best
from dsa.analysis.output.report.grid import Cell, Grid
from dsa.analysis.output.report.overview import one, share_of_dense, signed
from dsa.analysis.output.terminal import success

NOTHING = "nothing may be ranked here, so nothing can be recommended"
ONLY = "no recommendation: nothing is shown to lose nothing; this is the best measured here, and no more"
SHOWN = "the cheapest that is shown to lose nothing"
BASELINE = "the baseline; others are shown to lose nothing, none of them cheaper"


def use(analysis: Analysis) -> Grid:
    """A row for each length: composition, loss over the baseline, success, operations, and what it rests on."""
    meta = analysis.prepared.meta
    scale = scale_of(meta.metric)
    margin = meta.margin.get(meta.metric)
    columns = (
        "length",
        "use",
        f"{scale.quantity} over {meta.baseline} [{scale.unit}]",
        "success rate",
        "operations (dense = 100 %)",
        "what it rests on",
    )
    note = f"{scale.plain.capitalize()}. Mean difference to the baseline with its 95 % interval over seeds; "
    note += (
        f"success: a seed that loses no more than {margin:g} {scale.unit}, with its 95 % interval; " if margin else ""
    )
    note += "operations: attention with its indexer, counted, not timed."
    return Grid("use", "What to use, and what it costs", columns, tuple(row(analysis, b) for b in analysis.best), note)


def row(analysis: Analysis, b: Best) -> tuple[Cell, ...]:
    """One length."""
    length = Cell(f"{b.seq_len} {b.context}".strip(), b.seq_len)
    if b.recommended is None:
        return length, Cell("nothing"), Cell("–"), Cell("–"), Cell("–"), Cell(NOTHING)
    place = (b.seq_len, b.context)
    operations = share_of_dense(analysis, b.recommended, place, "flops")
    name = b.recommended if b.shown else f"nothing shown; best measured: {b.recommended}"
    if b.recommended == analysis.prepared.meta.reference(b.recommended):
        return length, Cell(name), Cell("is the baseline"), Cell("–"), operations, Cell(BASELINE if b.shown else ONLY)
    compared = one(analysis.comparisons, b.recommended, place, b.metric)
    lost = Cell("–") if compared is None else Cell(signed(compared), compared.difference.mean)
    rate = Cell("–") if compared is None else Cell(success(compared.difference), compared.difference.success_rate)
    return length, Cell(name), lost, rate, operations, Cell(SHOWN if b.shown else ONLY)
