"""Whether a study can tell good from bad at a length: dense attention must beat random keys and the nearest keys."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.prepare import Prepared
from dsa.analysis.scale import SCALES, Scale
from dsa.analysis.statistics import bootstrap_interval, t_test
from dsa.study.power import ALPHA

OPPONENTS = ("random", "window")
SLACK = 0.01  # nats below the unigram entropy that a loss must reach to say anything


@dataclass(frozen=True)
class Discrimination:
    """Whether anything may be ranked at one length, in one context, on one scale; and why not."""

    seq_len: int
    context: str
    metric: str
    possible: bool
    sentence: str


def discriminate(prepared: Prepared, scale: Scale) -> list[Discrimination]:
    """The answer for every length and context."""
    return [
        one(prepared, seq_len, context, scale)
        for seq_len in prepared.lengths
        for context in prepared.contexts
        if prepared.conditions(seq_len, context)
    ]


def one(prepared: Prepared, seq_len: int, context: str, scale: Scale) -> Discrimination:
    """The answer for one length and context; the window has the baseline's budget where runs measured their own."""
    labels = prepared.conditions(seq_len, context)
    label = next((c for c in labels if prepared.meta.reference(c) == c), labels[0])
    dense = prepared.dense(label, seq_len, scale)
    where = f"at {seq_len}" + (f", {context}" if context else "")
    obstacles = [uninformed(prepared, label, seq_len, scale)]
    for kind in OPPONENTS:
        obstacles.append(undefeated(kind, dense, prepared.opponent(kind, label, seq_len, scale), scale))
    found = [obstacle for obstacle in obstacles if obstacle]
    sentence = f"{where}: {'; '.join(found) if found else 'dense attention beats random and window'}."
    return Discrimination(seq_len, context, scale.metric, not found, sentence)


def undefeated(kind: str, dense: pd.Series, theirs: pd.Series, scale: Scale) -> str | None:
    """Why dense attention does not beat an opponent by more than its interval; None if it does."""
    gain = ((theirs - dense) * scale.sign).dropna().to_numpy()
    if len(gain) < 2:
        return f"dense and {kind} share {len(gain)} seeds, at least 2 are needed"
    interval = bootstrap_interval(gain)
    if gain.mean() > 0 and t_test(gain) < ALPHA and (interval is None or interval[0] > 0):
        return None
    return f"dense is not distinguishable from {kind} (it gains {gain.mean():+.4g} {scale.unit}, p {t_test(gain):.2g})"


def uninformed(prepared: Prepared, label: str, seq_len: int, scale: Scale) -> str | None:
    """Why dense attention's loss carries no information; None if it does."""
    loss = SCALES["swap_val_loss" if scale.metric.startswith("swap_") else "val_loss"]
    dense, unigram = prepared.dense(label, seq_len, loss), prepared.column(label, seq_len, "unigram_loss")
    if dense.empty or unigram.empty or dense.mean() <= unigram.mean() - SLACK:
        return None
    return f"dense attention's loss {dense.mean():.4f} is not below the unigram entropy {unigram.mean():.4f}"


def rankable(found: list[Discrimination]) -> set[tuple[int, str]]:
    """The lengths and contexts in which ranking is allowed."""
    return {(d.seq_len, d.context) for d in found if d.possible}
