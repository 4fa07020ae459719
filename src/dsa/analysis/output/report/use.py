"""What to use at each length, and what it costs."""

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.best import BASELINE, BEHIND, LOSSLESS, ONLY_BEST, Best
from dsa.analysis.judgement.headroom import MEANINGS
from dsa.analysis.output.report.grid import Cell, Grid
from dsa.analysis.output.report.overview import one, share_of_dense, signed
from dsa.analysis.output.terminal import success

NOTHING = "nothing may be ranked here, so nothing can be recommended"
GROUNDS = {
    LOSSLESS: "the cheapest that is shown to lose nothing",
    BASELINE: "the baseline; others are shown to lose nothing, none of them cheaper",
    BEHIND: "the baseline; others are shown to lose nothing, none of them cheaper, and another is shown to be better",
    ONLY_BEST: "no recommendation: nothing is shown to lose nothing; this is the best measured here, and no more",
}
DENSE = "dense attention, which it would replace, costs less and loses less"


def use(analysis: Analysis) -> Grid:
    """A row for each length: composition, loss over the baseline and over dense, seeds, operations, grounds, best."""
    meta = analysis.prepared.meta
    scale = scale_of(meta.metric)
    margin = meta.margin.get(meta.metric)
    columns = (
        "length",
        "use",
        f"{scale.quantity} over {meta.baseline} [{scale.unit}]",
        f"{scale.quantity} over dense [{scale.unit}]",
        "seeds that keep to the margin",
        "operations (dense = 100 %)",
        "what it rests on",
        "best measured, at any cost",
    )
    note = f"{scale.plain.capitalize()}. Mean difference with its 95 % interval over seeds; "
    note += (
        f"a seed keeps to the margin if it loses no more than {margin:g} {scale.unit}: their share, with its 95 % "
        "interval; "
        if margin
        else ""
    )
    note += "operations: attention with its indexer, counted, not timed." + of_headroom(analysis, margin)
    return Grid("use", "What to use, and what it costs", columns, tuple(row(analysis, b) for b in analysis.best), note)


def of_headroom(analysis: Analysis, margin: float | None) -> str:
    """What share of the headroom the margin is, at each length and context where there is one."""
    if not margin:
        return ""
    meta = analysis.prepared.meta
    found = {(h.seq_len, meta.context(h.label)): h for h in analysis.headroom if h.metric == meta.metric}
    shares = [
        f"{margin / found[place].headroom:.1%}".replace("%", " %") + f" at {place[0]} {place[1]}".rstrip()
        for place in sorted(found)
    ]
    if not shares:
        return ""
    against = MEANINGS[next(iter(found.values())).opponent]
    return f" Of what dense attention gains over {against} the margin is {', '.join(shares)}."


def row(analysis: Analysis, b: Best) -> tuple[Cell, ...]:
    """One length."""
    length = Cell(f"{b.seq_len} {b.context}".strip(), b.seq_len)
    none = Cell("–")
    if b.recommended is None:
        return length, Cell("nothing"), none, none, none, none, Cell(NOTHING), none
    place = (b.seq_len, b.context)
    over_dense = one(analysis.to_dense, b.recommended, place, b.metric)
    operations = share_of_dense(analysis, b.recommended, place, "flops")
    compared = one(analysis.comparisons, b.recommended, place, b.metric)
    return (
        length,
        Cell(" or ".join((b.recommended, *b.alike)) if b.standing != ONLY_BEST else "nothing shown"),
        Cell("is the baseline") if compared is None else Cell(signed(compared), compared.difference.mean),
        none if over_dense is None else Cell(signed(over_dense), over_dense.difference.mean),
        none if compared is None else Cell(success(compared.difference), compared.difference.success_rate),
        operations,
        Cell(grounds(analysis, b)),
        Cell(b.best or "–"),
    )


def grounds(analysis: Analysis, b: Best) -> str:
    """What the recommendation rests on, and whether dense attention is the better one."""
    assert b.recommended is not None and b.standing is not None
    out = GROUNDS[b.standing]
    return f"{out}; but {DENSE}" if dense_is_better(analysis, b.recommended, b) else out


def dense_is_better(analysis: Analysis, label: str, b: Best) -> bool:
    """Whether a condition takes at least dense attention's operations and its mean is worse."""
    place = (b.seq_len, b.context)
    share = share_of_dense(analysis, label, place, "flops").value
    over = one(analysis.to_dense, label, place, b.metric)
    if share is None or over is None:
        return False
    return float(share) >= 100 and over.difference.mean * scale_of(b.metric).sign > 0
