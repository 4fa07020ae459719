"""Each condition against the baseline, or against dense attention, at each length: a difference and a verdict word."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsa.analysis.prepare import Prepared
from dsa.analysis.scale import Scale, scale_of
from dsa.analysis.statistics import Array, Difference, difference, holm
from dsa.study.power import ALPHA, seeds_needed, smallest_p

Word = Literal["better", "worse", "equivalent", "inconclusive"]
DENSE: Literal["dense"] = "dense"


@dataclass(frozen=True)
class Comparison:
    """One condition against its reference at one length, on one scale.

    Args:
        difference: condition less reference.
        p, p_equivalence: corrected by Holm over the comparisons of this length, scale and kind of reference.
        comparisons: how many those are.
    """

    label: str
    reference: str
    seq_len: int
    metric: str
    difference: Difference
    comparisons: int
    p: float
    p_equivalence: float
    margin: float
    word: Word
    sentence: str


def compare(prepared: Prepared, metric: str, to: Literal["baseline", "dense"] = "baseline") -> list[Comparison]:
    """Every comparison on a metric, at all lengths.

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
        out += family(pairs, seq_len, scale, margin)
    return out


def against(prepared: Prepared, label: str, seq_len: int, scale: Scale, to: str) -> tuple[str, Array]:
    """What a condition is compared with, and the differences by seed."""
    reference = DENSE if to == DENSE else prepared.meta.reference(label)
    mine = prepared.quality(label, seq_len, scale)
    theirs = prepared.dense(label, seq_len, scale) if to == DENSE else prepared.quality(reference, seq_len, scale)
    return reference, (mine - theirs).dropna().to_numpy()


def family(pairs: dict[tuple[str, str], Array], seq_len: int, scale: Scale, margin: float) -> list[Comparison]:
    """Comparisons that are corrected together."""
    count = len(pairs)
    differences = [difference(d, margin, count) for d in pairs.values()]
    corrected = holm([d.p for d in differences])
    inside = holm([d.p_equivalence for d in differences])
    out = []
    for (label, reference), d, p, q in zip(pairs, differences, corrected, inside, strict=True):
        word, why = judge(d, p, q, count, scale, margin)
        sentence = f"{label} against {reference} at {seq_len}: {word}. {why}"
        out.append(Comparison(label, reference, seq_len, scale.metric, d, count, p, q, margin, word, sentence))
    return out


def enough(seeds: int, comparisons: int) -> bool:
    """Whether so many seeds can carry a claim: their exact test could stay significant after correction."""
    return seeds >= 2 and smallest_p(seeds) * comparisons <= ALPHA


def judge(d: Difference, p: float, q: float, comparisons: int, scale: Scale, margin: float) -> tuple[Word, str]:
    """The word for a difference and why.

    A difference shown to lie within the margin is equivalent even if it is also significant: the margin is the largest
    difference that counts as none.

    Args:
        p, q: corrected p of the t test and of equivalence.
    """
    size = f"{d.mean:+.4g} {scale.unit}" + (f" [{d.interval[0]:+.4g}, {d.interval[1]:+.4g}]" if d.interval else "")
    if not enough(d.seeds, comparisons):
        return "inconclusive", (
            f"{size}; {d.seeds} seeds carry no claim over {comparisons} comparisons, "
            f"{seeds_needed(comparisons)} are needed."
        )
    if q < ALPHA:
        return "equivalent", f"{size} lies within the margin of {margin:g} {scale.unit} (corrected p {q:.2g})."
    certain = d.interval is None or np.sign(d.interval[0]) == np.sign(d.interval[1]) != 0
    if p < ALPHA and certain:
        word: Word = "better" if d.mean * scale.sign < 0 else "worse"
        return word, f"{size}, corrected p {p:.2g}."
    seen = f"; the study could have seen {d.detectable:.2g} {scale.unit}" if d.detectable is not None else ""
    return "inconclusive", f"{size}, corrected p {p:.2g}{seen}."
