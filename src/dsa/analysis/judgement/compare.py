"""Each condition against the baseline, or against dense attention, at each length: a difference and a verdict word."""

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale, scale_of
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.difference import Difference, difference
from dsa.analysis.statistics.paired import paired
from dsa.analysis.statistics.power import carries_no_claim, enough, seeds_for_no_loss
from dsa.analysis.statistics.values import ALPHA

CANNOT: Literal["cannot discriminate"] = "cannot discriminate"
Word = Literal["better", "worse", "equivalent", "inconclusive", "cannot discriminate"]
DENSE: Literal["dense"] = "dense"


@dataclass(frozen=True)
class Comparison:
    """One condition against its reference at one length, on one scale.

    Args:
        difference: condition less reference.
        p, p_no_loss, p_lossless: corrected by Holm over the comparisons of this length, scale and kind of reference.
        comparisons: how many those are.
        word: cannot discriminate where nothing may be ranked, whatever the numbers.
    """

    label: str
    reference: str
    seq_len: int
    metric: str
    difference: Difference
    comparisons: int
    p: float
    p_no_loss: float
    p_lossless: float
    margin: float
    word: Word
    sentence: str

    @property
    def loses_nothing(self) -> bool:
        """Whether it was shown to lose nothing against its reference: no more than the margin, on average and by seed.

        A mean that is better says nothing about the seeds that fail.
        """
        return self.word != CANNOT and self.p_lossless < ALPHA


def compare(
    prepared: Prepared, metric: str, places: set[tuple[int, str]], to: Literal["baseline", "dense"] = "baseline"
) -> list[Comparison]:
    """Every comparison on a metric, at all lengths.

    Args:
        places: lengths and contexts in which ranking is allowed.

    Raises:
        ValueError: the metric is not a quality.
    """
    scale, margin = scale_of(metric), prepared.meta.margin.get(metric, 0.0)
    out: list[Comparison] = []
    for seq_len in prepared.lengths:
        pairs = {
            (label, reference): d
            for label in prepared.conditions(seq_len)
            for reference, d in [against(prepared, label, seq_len, scale, to)]
            if reference != label and len(d)
        }
        silent = {label for label, _ in pairs if (seq_len, prepared.meta.context(label)) not in places}
        out += family(pairs, seq_len, scale, margin, silent)
    return out


def against(prepared: Prepared, label: str, seq_len: int, scale: Scale, to: str) -> tuple[str, pd.Series]:
    """What a condition is compared with, and the differences by seed."""
    reference = DENSE if to == DENSE else prepared.meta.reference(label)
    mine = prepared.quality(label, seq_len, scale)
    theirs = prepared.dense(label, seq_len, scale) if to == DENSE else prepared.quality(reference, seq_len, scale)
    return reference, paired(mine, theirs)


def family(
    pairs: dict[tuple[str, str], pd.Series],
    seq_len: int,
    scale: Scale,
    margin: float,
    silent: set[str] | frozenset[str] = frozenset(),
) -> list[Comparison]:
    """Comparisons that are corrected together.

    Args:
        pairs: differences by seed, by condition and reference.
        silent: conditions where nothing may be ranked.
    """
    count = len(pairs)
    differences = [difference(d, margin, count, scale.sign) for d in pairs.values()]
    corrected = holm([d.p for d in differences])
    no_loss = holm([d.p_no_loss for d in differences])
    no_worse = holm([d.p_lossless for d in differences])
    out = []
    for (label, reference), d, p, q, r in zip(pairs, differences, corrected, no_loss, no_worse, strict=True):
        word, why = decide(d, p, q, count, scale, margin)
        sentence = f"{label} against {reference} at {seq_len}: {word}. {why}"
        c = Comparison(label, reference, seq_len, scale.metric, d, count, p, q, r, margin, word, sentence)
        out.append(silenced(c, {(name, seq_len) for name in silent}))
    return out


def silenced(c: Comparison, blocked: set[tuple[str, int]]) -> Comparison:
    """The comparison without a word where it or its reference may not be ranked at that length."""
    if not {(c.label, c.seq_len), (c.reference, c.seq_len)} & blocked:
        return c
    return replace(
        c, word=CANNOT, sentence=f"{c.label} against {c.reference} at {c.seq_len}: {CANNOT}. Nothing is ranked here."
    )


def decide(d: Difference, p: float, q: float, comparisons: int, scale: Scale, margin: float) -> tuple[Word, str]:
    """The word for a difference and why.

    A difference shown to lie within the margin is equivalent even if it is also significant: the margin is the largest
    difference that counts as none.

    Args:
        p, q: corrected p of the sign-flip test and of no loss.
    """
    size = d.told(scale.unit)
    if not enough(d.seeds, comparisons):
        return "inconclusive", f"{size}; {carries_no_claim(d.seeds, comparisons)}."
    near = "" if d.within is None else f"{d.within} of {d.seeds} seeds lie within the margin of {margin:g} {scale.unit}"
    if q < ALPHA:
        return "equivalent", f"{size}; {near} (corrected p {q:.2g})."
    rest = f"; {near}." if near else "."
    if p < ALPHA:
        return "better" if d.mean * scale.sign < 0 else "worse", f"{size}, corrected p {p:.2g}{rest}"
    seen = f"; the study could have seen {d.detectable:.2g} {scale.unit}" if d.detectable is not None else ""
    least = seeds_for_no_loss(comparisons)
    more = f" No loss can be shown from {least} seeds on." if near and d.seeds < least else ""
    return "inconclusive", f"{size}, corrected p {p:.2g}{seen}{rest}{more}"
