"""What every condition loses against the baseline, and what the planned contrasts come to."""

import re
from collections.abc import Iterable, Sequence

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.contrasts import Contrast
from dsa.analysis.output.figures.limits import axis, ends
from dsa.analysis.output.figures.places import Place, places, scale, title
from dsa.analysis.output.figures.spec import Chart, Mark, Panel, Row
from dsa.analysis.statistics.difference import Difference


def chart(analysis: Analysis) -> Chart:
    """Conditions less the baseline, on the primary metric."""
    meta = analysis.prepared.meta
    panels = [one for place in places(analysis) if (one := panel(analysis, place)).rows]
    return Chart(
        name="differences",
        kind="forest",
        title=f"{scale(analysis).plain.capitalize()}: against {meta.baseline}",
        panels=tuple(panels),
        series=("difference",),
        caption="Condition less baseline: mean and 95 % BCa interval over seeds. Dashed: the margin. "
        + ("Left" if scale(analysis).sign > 0 else "Right")
        + " is better.",
    )


def panel(analysis: Analysis, place: Place) -> Panel:
    """One length."""
    meta = analysis.prepared.meta
    mine = [
        c
        for c in analysis.comparisons
        if (c.seq_len, meta.context(c.label)) == place and c.metric == meta.metric
    ]  # fmt: skip
    rows = tuple(
        Row(c.label, "condition", (Mark(0, c.difference.mean, c.difference.interval, note=note(c.word, c.difference)),))
        for c in mine
    )
    margin = meta.margin.get(meta.metric, 0.0)
    core = [end for c in mine for end in ends(c.difference.mean, c.difference.interval)]
    label = f"{scale(analysis).quantity} less the baseline's [{scale(analysis).unit}]"
    return Panel(title(place), axis(label, core, [0.0, margin, -margin], False, guides(margin), margin), rows=rows)


def note(word: str, d: Difference) -> str:
    return f"{word}, {d.seeds} seeds" + ("" if d.within is None else f", {d.within} within the margin")


def guides(margin: float) -> tuple[float, ...]:
    """No difference, and the margin either way."""
    return (-margin, 0.0, margin) if margin else (0.0,)


def contrasts(analysis: Analysis) -> Chart:
    """The planned contrasts, a panel for each length and for each change between lengths."""
    spans = dict.fromkeys((c.seq_len, c.since) for c in analysis.contrasts)
    panels = [contrasts_at(analysis, [c for c in analysis.contrasts if (c.seq_len, c.since) == s]) for s in spans]
    return Chart(
        name="contrasts",
        kind="forest",
        title=f"{scale(analysis).plain.capitalize()}: the planned contrasts",
        panels=tuple(panels),
        series=("difference",),
        caption="Mean (where it says so, sum) of the first group less that of the second, within a seed, and its 95 % "
        "BCa interval over seeds. "
        + ("Left" if scale(analysis).sign > 0 else "Right")
        + " of 0 the first group is better. "
        + " ".join(f"{name}: {against(analysis, name)}." for name in dict.fromkeys(c.name for c in analysis.contrasts)),
    )


def contrasts_at(analysis: Analysis, mine: list[Contrast]) -> Panel:
    """One length, or one change."""
    rows = tuple(
        Row(
            c.name,
            "condition",
            (Mark(0, c.difference.mean, c.difference.interval, note=found(c)),),
            ends=sides(analysis, c),
        )
        for c in mine
    )
    first = mine[0]
    name = f"length {first.seq_len}" + ("" if first.since is None else f" less {first.since}")
    label = f"difference of {scale(analysis).quantity} [{scale(analysis).unit}]"
    return Panel(name, axis(label, [*values(mine), 0.0], log=False, guides=(0.0,)), rows=rows)


def groups(analysis: Analysis, name: str) -> tuple[str, str]:
    """Which conditions a contrast counts, and which it takes off."""
    planned = analysis.prepared.meta.contrasts[name]
    return together(planned["plus"]), together(planned["minus"])


def against(analysis: Analysis, name: str) -> str:
    what = "sum of " if analysis.prepared.meta.contrasts[name].get("sums") else ""
    return what + " less ".join(groups(analysis, name))


def sides(analysis: Analysis, c: Contrast) -> tuple[str, str]:
    """Which group is the better one to the left of 0, and to the right; of a change, which gains with length."""
    what = "better" if c.since is None else f"gains from {c.since} to {c.seq_len}"
    first, second = (f"{group} {what}" for group in groups(analysis, c.name))
    return (first, second) if scale(analysis).sign > 0 else (second, first)


def together(labels: Sequence[str]) -> str:
    """Several labels in short: h4d8 and h4d16 are h4d{8,16}."""
    if len(labels) < 2:
        return "".join(labels)
    pieces = [re.findall(r"\d+|\D", label) for label in labels]  # a number is never cut
    start = shared(pieces)
    end = shared([piece[start:][::-1] for piece in pieces])
    middles = ["".join(piece[start : len(piece) - end]) for piece in pieces]
    first = pieces[0]
    return f"{''.join(first[:start])}{{{','.join(middles)}}}{''.join(first[len(first) - end :])}"


def shared(pieces: list[list[str]]) -> int:
    """How many pieces all begin with."""
    alike = [len(set(column)) == 1 for column in zip(*pieces, strict=False)]
    return [*alike, False].index(False)


def found(c: Contrast) -> str:
    return f"{'differs' if c.differs else 'not shown to differ'}, {c.difference.seeds} seeds"


def values(mine: Iterable[Contrast]) -> list[float]:
    return [end for c in mine for end in ends(c.difference.mean, c.difference.interval)]
