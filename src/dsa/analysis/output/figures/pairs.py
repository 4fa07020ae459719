"""What is lost beyond dense attention by the keys that are kept for each pair to remember: a line an indexer."""

from collections import defaultdict

from dsa.analysis.inputs.scale import scale_of
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.figures.limits import axis
from dsa.analysis.output.figures.places import Place, labels, places, role
from dsa.analysis.output.figures.spec import Axis, Chart, Line, Panel
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.artifacts.names import BUDGET
from dsa.share import keys_per_pair

ROOM = 1.25  # how far the axis goes beyond the least and the largest ratio, as a factor
FAR = ("random", "window", "sink_window", "static")  # controls that may lie beyond the axis
Point = tuple[float, float, float, float, int]


def chart(analysis: Analysis) -> Chart:
    """One panel a length; nothing where a study does not vary the keys for a pair, with controls at each budget."""
    by_length: dict[int, list[Place]] = defaultdict(list)
    for place in places(analysis):
        if ratio(analysis, place) is not None:
            by_length[place[0]].append(place)
    panels = tuple(panel(analysis, n, here) for n, here in by_length.items() if len(here) > 1)
    scale = scale_of(analysis.prepared.meta.metric)
    return Chart(
        name="keys_per_pair",
        kind="lines",
        title="Excess over dense attention by the keys kept for each pair",
        panels=panels,
        caption=f"{scale.plain.capitalize()}, less that of dense attention: mean and 95 % BCa interval over seeds. "
        "At 1 there is a key for each pair that a row asks for, to its left fewer keys than pairs. What the oracle "
        "loses there no indexer can win back. Dashed across: the margin." + unranked(analysis, by_length),
    )


def unranked(analysis: Analysis, by_length: dict[int, list[Place]]) -> str:
    """Where dense attention does not beat the controls, in words."""
    open_ = rankable(analysis.discrimination)
    blind = [place[1] for here in by_length.values() for place in here if place not in open_]
    return f" Nothing is ranked at {', '.join(dict.fromkeys(blind))}." if blind else ""


def ratio(analysis: Analysis, place: Place) -> float | None:
    """Keys for a pair in a place; None where the study does not say."""
    meta = analysis.prepared.meta
    settings = meta.common | meta.conditions[analysis.prepared.conditions(*place)[0]]
    return keys_per_pair(settings.get(BUDGET)) if place[1] else None


def panel(analysis: Analysis, seq_len: int, here: list[Place]) -> Panel:
    """One length."""
    meta = analysis.prepared.meta
    scale, margin = scale_of(meta.metric), meta.margin.get(meta.metric, 0.0)
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for place in here:
        for label in labels(analysis, place):
            if (one := point(analysis, label, place)) is not None:
                points[label.removesuffix(f"-{place[1]}"), role(analysis, label)].append(one)
    lines = [line(name, kind, sorted(found)) for (name, kind), found in points.items()]
    core = [end for one in lines if one.role not in FAR for end in (*one.low, *one.high)]
    others = [end for one in lines if one.role in FAR for end in (*one.low, *one.high)]
    x = tuple(sorted({value for one in lines for value in one.x}))
    return Panel(
        f"length {seq_len}",
        Axis("keys kept a query for each pair", log=True, limits=(x[0] / ROOM, x[-1] * ROOM), ticks=x),
        axis(
            f"{scale.quantity} less dense attention's [{scale.unit}]",
            core, [*others, 0.0, margin], log=False, guides=(0.0, margin) if margin else (0.0,), margin=margin,
        ),
        lines=tuple(lines),
    )  # fmt: skip


def point(analysis: Analysis, label: str, place: Place) -> Point | None:
    """Where a condition or control lies, with its interval and how many seeds; None without any, and for dense."""
    prepared = analysis.prepared
    scale, x = scale_of(prepared.meta.metric), ratio(analysis, place)
    mine, dense = prepared.quality(label, place[0], scale), prepared.dense(label, place[0], scale)
    values = ((mine - dense) * scale.sign).dropna()
    if role(analysis, label) == "dense" or not len(values) or x is None:
        return None
    mean = float(values.mean())
    low, high = bootstrap_interval(values.to_numpy()) or (mean, mean)
    return x, mean, low, high, len(values)


def line(name: str, kind: str, points: list[Point]) -> Line:
    """One indexer's or control's course over the ratios."""
    x, y, low, high, seeds = zip(*points, strict=True)
    return Line(name, kind, x, y, low, high, f"{min(seeds)} seeds", marked=True)
