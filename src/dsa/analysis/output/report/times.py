"""A claim about times in plain words."""

from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.hypothesis import spoken_of
from dsa.analysis.judgement.speed import Speed, saved, speeds
from dsa.analysis.output.report.words import listed, names


def claim(analysis: Analysis) -> str:
    """What is claimed."""
    named = spoken_of(analysis.prepared.meta)
    takes = "takes" if len(named) == 1 else "take"
    return f"{names(named)} {takes} less time for a training step than {analysis.prepared.meta.baseline}"


def shown(analysis: Analysis) -> str:
    """By how much."""
    return f"{claim(analysis)}: saved of its time are, {by_length(said(analysis, 'less'))}"


def refuted(analysis: Analysis) -> str:
    """What takes more."""
    found = by_length(said(analysis, "more"))
    return f"Not all save time in a training step against {analysis.prepared.meta.baseline}: {found}"


def undecided(analysis: Analysis) -> str:
    """What turns do not say, and what they do."""
    open_ = by_length(said(analysis, None), much=False)
    shares = [100 * (1 - s.ratio.value) for s in said(analysis, "less") if s.ratio]
    shown = f"; all others do, by {min(shares):.0f} to {max(shares):.0f} % of its time" if shares else ""
    return f"turns disagree, or were not taken, for {open_}{shown}"


def said(analysis: Analysis, what: str | None) -> list[Speed]:
    """The named conditions and lengths of which all turns say this; None: of which they do not agree."""
    named = spoken_of(analysis.prepared.meta)
    return [s for s in speeds(analysis.prepared) if s.label in named and s.shown == what]


def by_length(found: list[Speed], much: bool = True) -> str:
    """Which share of the baseline's time each saves at which length.

    Args:
        much: tell the share too.
    """
    by_label: dict[str, list[Speed]] = {}
    for s in found:
        by_label.setdefault(s.label, []).append(s)
    return "; ".join(
        f"{label} at " + listed(f"{s.seq_len} ({saved(s.ratio)})" if s.ratio and much else s.seq_len for s in mine)
        for label, mine in by_label.items()
    )
