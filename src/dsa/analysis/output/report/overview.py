"""The table that stands first: at each length every condition and control with what matters of it, in one row."""

from dataclasses import dataclass

from dsa.analysis.inputs.cost import COSTS, DENSE_FLOPS, cost_of
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis, Quality
from dsa.analysis.judgement.best import BASELINE, BEHIND, LOSSLESS, ONLY_BEST
from dsa.analysis.judgement.compare import CANNOT, Comparison
from dsa.analysis.judgement.price import typical
from dsa.analysis.output.figures.places import Place, labels, places, role, title
from dsa.analysis.output.report.grid import Cell, measured
from dsa.analysis.output.terminal import number

MARKS = {
    LOSSLESS: "recommended",
    BASELINE: "recommended",
    BEHIND: "nothing cheaper is shown to do",
    ONLY_BEST: "best measured, no more",
    None: "",
}


@dataclass(frozen=True)
class Line:
    """A condition or control.

    Args:
        role: condition, baseline, or which control.
        mark: what its being the answer at this length is worth; empty if it is not the answer.
    """

    label: str
    role: str
    mark: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Overview:
    """One length (and context)."""

    name: str
    lines: tuple[Line, ...]


def columns(analysis: Analysis) -> tuple[str, ...]:
    """The heads of the cells."""
    scale = SCALES[analysis.prepared.meta.metric]
    costs = ("indexer parameters", "operations (dense = 100 %)", "step time (of dense)")
    return f"{scale.plain} [{scale.unit}]", "beside dense", "seeds beyond margin", *costs, "verdict"


def overviews(analysis: Analysis) -> list[Overview]:
    """Every length and context."""
    out = []
    for place in places(analysis):
        use = {b.recommended: MARKS[b.standing] for b in analysis.best if (b.seq_len, b.context) == place}
        lines = [
            Line(label, role(analysis, label), use.get(label, ""), cells(analysis, place, label))
            for label in labels(analysis, place)
        ]
        out.append(Overview(title(place), tuple(lines)))
    return out


def cells(analysis: Analysis, place: Place, label: str) -> tuple[Cell, ...]:
    """What one row shows after its name."""
    metric = analysis.prepared.meta.metric
    found = next((q for q in analysis.qualities if (q.label, q.seq_len, q.metric) == (label, place[0], metric)), None)
    mine = one(analysis.comparisons, label, place, metric)
    gap = one(analysis.to_dense, label, place, metric)
    return (
        Cell(mean_of(found), found.mean) if found else Cell("–"),
        Cell("–") if gap is None else Cell(signed(gap), gap.difference.mean),
        losing(mine),
        measured(typical_cost(analysis, label, place, "indexer_params")),
        share_of_dense(analysis, label, place, "flops"),
        step_time(analysis, label, place),
        Cell(verdict(analysis, label, mine)),
    )


def one(comparisons: list[Comparison], label: str, place: Place, metric: str) -> Comparison | None:
    return next((c for c in comparisons if (c.label, c.seq_len, c.metric) == (label, place[0], metric)), None)


def mean_of(found: Quality) -> str:
    """A mean with its interval, as many digits as tell conditions apart."""
    low_high = f" [{found.interval[0]:.3g}, {found.interval[1]:.3g}]" if found.interval else ""
    return f"{found.mean:.4g}{low_high}"


def signed(c: Comparison) -> str:
    """A difference with its interval."""
    d = c.difference
    return f"{d.mean:+.3g}" + (f" [{d.interval[0]:+.2g}, {d.interval[1]:+.2g}]" if d.interval else "")


def losing(c: Comparison | None) -> Cell:
    """Seeds that lose more than the margin against the baseline; nothing where nothing may be ranked."""
    if c is None or c.word == CANNOT or c.difference.successes is None:
        return Cell("–")
    worse = c.difference.seeds - c.difference.successes
    return Cell(f"{worse} of {c.difference.seeds}", worse)


def typical_cost(analysis: Analysis, label: str, place: Place, name: str) -> float | None:
    """A cost; None where unknown or not to be ranked."""
    values = cost_of(analysis.prepared, label, place[0], COSTS[name])
    return typical(values, COSTS[name]) if len(values) else None


def dense_cost(analysis: Analysis, label: str, place: Place, name: str) -> float | None:
    """The cost of dense attention beside a condition: that of the control, or what its own runs counted."""
    prepared = analysis.prepared
    control = prepared.control("dense", place[1])
    if control is not None and (cost := typical_cost(analysis, control, place, name)):
        return cost
    counted = prepared.column(label, place[0], DENSE_FLOPS)
    return float(counted.mean()) if name == "flops" and len(counted) else None


def share_of_dense(analysis: Analysis, label: str, place: Place, name: str) -> Cell:
    """A cost in percent of dense attention's."""
    mine, dense = typical_cost(analysis, label, place, name), dense_cost(analysis, label, place, name)
    if mine is None or not dense:
        return Cell("–")
    return Cell(f"{100 * mine / dense:.0f} %", 100 * mine / dense)


def step_time(analysis: Analysis, label: str, place: Place) -> Cell:
    """The time of a training step taken alone, and in percent of dense attention's."""
    mine = typical_cost(analysis, label, place, "step_ms")
    if mine is None:
        return Cell("–")
    share = share_of_dense(analysis, label, place, "step_ms").text
    return Cell(f"{number(mine, 3)} ms" + (f" ({share})" if share != "–" else ""), mine)


def verdict(analysis: Analysis, label: str, c: Comparison | None) -> str:
    """The word, or what else a row is."""
    kind = role(analysis, label)
    if kind == "baseline":
        return "baseline"
    if kind != "condition":
        return "control"
    return "no comparison" if c is None else c.word
