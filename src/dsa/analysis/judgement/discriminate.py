"""Whether a study can tell good from bad at a length: dense attention must beat the controls that find nothing."""

from dataclasses import dataclass

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import SCALES, Scale
from dsa.analysis.statistics.intervals import beyond_zero, t_interval
from dsa.analysis.statistics.paired import one_number

REQUIRED = ("random", "window")
WHERE_PLANNED = ("sink_window",)
SLACK = 0.01  # nats below the unigram entropy that a loss must reach to say anything
NEXT = (
    "What to do: take a longer sequence or a smaller budget, add seeds, or a dense base that beats the controls: "
    "trained longer or on an easier task, where it is yours to train."
)


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
    opponents = (*REQUIRED, *(kind for kind in WHERE_PLANNED if prepared.meta.plans(kind)))
    for kind in opponents:
        measured = prepared.opponent(kind, label, seq_len, scale)
        theirs = capped(prepared, label, seq_len, scale, measured)
        named = kind if theirs.equals(measured) else f"{kind}, whose loss counts as that of chance at most,"
        obstacles.append(undefeated(named, dense, theirs, scale, prepared.meta.margin.get(scale.metric, 0.0)))
    found = [obstacle for obstacle in obstacles if obstacle]
    beaten = " and ".join([", ".join(opponents[:-1]), opponents[-1]])
    sentence = f"{where}: {'; '.join(found) if found else f'dense attention beats {beaten}'}."
    return Discrimination(seq_len, context, scale.metric, not found, sentence)


def capped(prepared: Prepared, label: str, seq_len: int, scale: Scale, loss: pd.Series) -> pd.Series:
    """A control's loss, at most that of chance: a confident wrong answer costs more than none, and shows no more."""
    chance = prepared.column(label, seq_len, "chance_loss")
    return loss.clip(upper=chance.mean()) if scale.unit == "nats" and len(chance) else loss


def undefeated(kind: str, dense: pd.Series, theirs: pd.Series, scale: Scale, margin: float) -> str | None:
    """Why dense attention does not beat an opponent by more than its intervals; None if it does.

    On a given model both are one number whatever the seed and have no interval: there it has to beat it by more than
    the margin, the largest difference that counts as none.
    """
    both = pd.DataFrame({"dense": dense, "theirs": theirs}).dropna()
    gain = ((both["theirs"] - both["dense"]) * scale.sign).to_numpy()
    if len(gain) < 2:
        return f"dense and {kind} share {len(gain) or 'no'} seed{'' if len(gain) == 1 else 's'}, at least 2 are needed"
    if one_number(both["dense"].to_numpy(), both["theirs"].to_numpy()):
        told = (
            f"dense does not beat {kind} by more than the margin of {margin:g} (it gains {gain[0]:+.4g} {scale.unit})"
        )
        return None if gain[0] > margin else told
    if beyond_zero(gain) > 0:
        return None
    low, high = t_interval(gain) or (gain.mean(), gain.mean())
    gained = f"{gain.mean():+.4g} [{low:+.4g}, {high:+.4g}] {scale.unit}"
    return f"dense does not beat {kind} by more than the interval (it gains {gained})"


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
