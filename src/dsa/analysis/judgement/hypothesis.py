"""A study's hypothesis, judged: supported, not supported, inconclusive or cannot discriminate, and the sentence why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.compare import CANNOT, Comparison
from dsa.analysis.judgement.contrasts import Contrast
from dsa.analysis.judgement.discriminate import NEXT, Discrimination, rankable
from dsa.analysis.judgement.pareto import Point
from dsa.analysis.judgement.ranking import Ranked, orders, pairwise
from dsa.analysis.judgement.speed import speeds
from dsa.analysis.statistics.power import carries_no_claim, enough, seeds_needed
from dsa.analysis.statistics.values import ALPHA, Array
from dsa.artifacts.names import OF_TURNS

Answer = Literal["supported", "not supported", "inconclusive", "cannot discriminate"]
Verdict = tuple[Answer, str]
DEFAULT_CLAIM = "some_condition_differs"
FEW = 2  # comparisons that a verdict tells with their numbers
WORDS = {"better": "Better than", "worse": "Worse than", "inconclusive": "Undecided against"}


@dataclass(frozen=True)
class Evidence:
    """What a claim is judged by; comparisons and points only where ranking is allowed, on the primary metric."""

    prepared: Prepared
    scale: Scale
    ranked: Ranked
    comparisons: list[Comparison]
    points: list[Point]
    contrasts: list[Contrast]

    @property
    def named(self) -> list[str]:
        """The conditions that the claim speaks of."""
        return spoken_of(self.prepared.meta)


def claim_of(meta: Meta) -> str:
    """What the study claims."""
    return str(meta.hypothesis.get("claim", DEFAULT_CLAIM))


def spoken_of(meta: Meta) -> list[str]:
    """The conditions that a claim speaks of: those it lists, or all but the baseline."""
    return list(meta.hypothesis.get("conditions") or [c for c in meta.conditions if c != meta.baseline])


def differing(comparisons: list[Comparison], named: list[str]) -> list[Comparison]:
    """Those of the named that differ from the baseline, corrected over the lengths too."""
    lengths = len({c.seq_len for c in comparisons})
    return [c for c in comparisons if c.label in named and c.word in ("better", "worse") and c.p * lengths < ALPHA]


def evaluate_hypothesis(evidence: Evidence, found: list[Discrimination]) -> Verdict:
    """The verdict on the study's claim.

    Lengths that cannot discriminate take no part; if none can, nothing is judged. A claim that rests on some
    comparison of many is corrected over all lengths, one that needs all of them needs no more correction. A claim about
    times rests on turns and not on seeds: what a loss can tell apart makes no difference to it.
    """
    claim = claim_of(evidence.prepared.meta)
    if claim not in OF_TURNS and not rankable(found):
        why = next((d.sentence for d in found), "no condition has a finished run.")
        rest = "" if claim == CANNOT.replace(" ", "_") else f" {NEXT}"
        return CANNOT, f"Nothing is ranked: {why}{rest}"
    if claim == CANNOT.replace(" ", "_"):
        places = ", ".join(str(d.seq_len) for d in found if d.possible)
        return "not supported", f"Dense attention beats random and window at {places}: there is something to rank."
    if claim not in CLAIMS:
        return "inconclusive", f"No test is known for the claim {claim}; known are {', '.join(CLAIMS)}."
    if evidence.prepared.meta.exploratory:
        answer, sentence = CLAIMS[claim](evidence)
        return "inconclusive", f"Exploratory, so nothing is claimed; it points to: {answer}. {sentence}"
    return CLAIMS[claim](evidence)


def told(comparisons: list[Comparison]) -> str:
    """Comparisons in a sentence: a few with their numbers, many by name; the tables hold the rest."""
    if len(comparisons) <= FEW:
        return " ".join(c.sentence for c in comparisons)
    alike: dict[tuple[str, str, int], list[str]] = {}
    for c in comparisons:
        alike.setdefault((WORDS[c.word], c.reference, c.seq_len), []).append(c.label)
    return " ".join(
        f"{word} {reference} at {seq_len}: {', '.join(labels)}." for (word, reference, seq_len), labels in alike.items()
    )


def some_condition_differs(evidence: Evidence) -> Verdict:
    """Whether any condition differs from the baseline at any length."""
    mine = [c for c in evidence.comparisons if c.label in evidence.named]
    found = differing(evidence.comparisons, evidence.named)
    if found:
        return "supported", told(found)
    if mine and wanted(evidence) <= {(c.label, c.seq_len) for c in mine} and all(c.word == "equivalent" for c in mine):
        return "not supported", "Every condition is equivalent to the baseline at every length."
    return "inconclusive", "No condition is shown to differ from the baseline at any length, nor all to equal it."


def wanted(evidence: Evidence) -> set[tuple[str, int]]:
    """Named conditions, and the lengths that can be ranked at which each is planned beside its baseline."""
    meta = evidence.prepared.meta
    return {
        (label, seq_len)
        for (seq_len, context) in evidence.ranked.fields
        for label in evidence.named
        if label != meta.reference(label) and meta.context(label) == context
        and not inapplicable(evidence.prepared, label, seq_len)
    }  # fmt: skip


def lacking(evidence: Evidence, places: set[tuple[str, int]]) -> list[str]:
    """Sentences about what is wanted and not among these places."""
    finished = {
        (label, seq_len)
        for seq_len, context in evidence.ranked.fields
        for label in evidence.prepared.conditions(seq_len, context)
    }
    return [
        f"{label} at {seq_len} {'is not ranked' if (label, seq_len) in finished else 'has no result'}."
        for label, seq_len in sorted(wanted(evidence) - places)
    ]


def no_quality_loss(evidence: Evidence) -> Verdict:
    """Whether each named condition is shown to lose nothing against the baseline, at every length."""
    mine = [c for c in evidence.comparisons if c.label in evidence.named]
    gaps = lacking(evidence, {(c.label, c.seq_len) for c in mine})
    worse = [c for c in differing(mine, evidence.named) if c.word == "worse"]
    if worse:
        return "not supported", told(worse)
    if mine and not gaps and all(c.loses_nothing for c in mine):
        return (
            "supported",
            f"{', '.join(evidence.named)}: on average and in more than 80 % of seeds no more than the margin is lost "
            "against the baseline, at any length.",
        )
    open_ = [told([c for c in mine if not c.loses_nothing])]
    return "inconclusive", " ".join(
        [*open_, *gaps]
    ).strip() or "None of the conditions that the claim names has a result."


def inapplicable(prepared: Prepared, label: str, seq_len: int) -> bool:
    return any(gap.state == "not applicable" and (gap.label, gap.seq_len) == (label, seq_len) for gap in prepared.gaps)


def contrasts_differ(evidence: Evidence) -> Verdict:
    """Whether each planned contrast that the claim names (or every one) differs, at every length that can be ranked."""
    named = evidence.prepared.meta.hypothesis.get("contrasts") or list(evidence.prepared.meta.contrasts)
    mine = [c for c in evidence.contrasts if c.name in named and c.since is None]
    told = " ".join(c.sentence for c in mine)
    lengths = {seq_len for seq_len, _ in evidence.ranked.fields}
    if mine and {(c.name, c.seq_len) for c in mine} == {(name, n) for name in named for n in lengths}:
        signs = {name: {c.difference.mean > 0 for c in mine if c.name == name} for name in named}
        if all(c.differs for c in mine) and all(len(sign) == 1 for sign in signs.values()):
            return "supported", told
    return "inconclusive", told or "None of the contrasts that the claim names has its conditions ranked."


def takes_less_time(evidence: Evidence) -> Verdict:
    """Whether a training step of each named condition takes less time than the baseline's, at every length."""
    mine = [s for s in speeds(evidence.prepared) if s.label in evidence.named]
    slower = [s for s in mine if s.shown == "more"]
    if slower:
        return "not supported", " ".join(s.sentence for s in slower)
    meta = evidence.prepared.meta
    planned = {(run["label"], run["seq_len"]) for run in meta.runs if run["label"] in evidence.named}
    wanted = {(label, n) for label, n in planned if label != meta.reference(label)}
    lacking = sorted(
        p for p in wanted - {(s.label, s.seq_len) for s in mine} if not inapplicable(evidence.prepared, *p)
    )
    if mine and not lacking and all(s.shown == "less" for s in mine):
        return "supported", " ".join(s.sentence for s in mine)
    open_ = [s.sentence for s in mine if s.shown is None]
    open_ += [f"{label} at {seq_len} has no result." for label, seq_len in lacking]
    return "inconclusive", " ".join(open_) or "No named condition has a result."


def on_pareto_front(evidence: Evidence) -> Verdict:
    """Whether each named condition is on the front of quality against operations (or the claim's `cost`), at every
    length; that one is not, corrected over them all."""
    cost = str(evidence.prepared.meta.hypothesis.get("cost", "flops"))
    mine = [p for p in evidence.points if p.label in evidence.named and p.cost == cost]
    beaten = [p for p in mine if p.p * len(mine) < ALPHA]
    if beaten:
        return "not supported", " ".join(
            f"{p.label} at {p.seq_len} is dominated by {', '.join(p.dominated_by)}." for p in beaten
        )
    gaps = lacking(evidence, {(p.label, p.seq_len) for p in mine})
    if mine and {p.label for p in mine} == set(evidence.named) and not gaps and all(p.shown for p in mine):
        return "supported", f"{', '.join(evidence.named)}: on the front of quality against {cost} at every length."
    open_ = ", ".join(f"{p.label} at {p.seq_len}" for p in mine if not p.shown)
    left = f"No other condition is shown to beat them, but the seeds leave it open for {open_ or 'all'}."
    return "inconclusive", " ".join([left, *gaps])


def order_depends_on_length(evidence: Evidence) -> Verdict:
    """Whether two conditions reverse their order between two lengths of one context."""
    differences = {}
    for (seq_len, context), labels in evidence.ranked.fields.items():
        for pair, d in pairwise(evidence.prepared, labels, seq_len, evidence.scale).items():
            differences[context, pair, seq_len] = d
    return reversal(evidence, differences, "length")


def order_depends_on_size(evidence: Evidence) -> Verdict:
    """Whether two indexers (or whatever the conditions compare) reverse their order between models at one length."""
    meta = evidence.prepared.meta
    names = {label: "-".join(str(value) for value in meta.options(label).values()) for label in meta.conditions}
    differences = {}
    for (seq_len, context), labels in evidence.ranked.fields.items():
        ordered = sorted(labels, key=lambda label: names[label])
        for (a, b), d in pairwise(evidence.prepared, ordered, seq_len, evidence.scale).items():
            differences[seq_len, (names[a], names[b]), context] = d
    return reversal(evidence, differences, "size")


def reversal(evidence: Evidence, differences: dict[tuple, Array], level: str) -> Verdict:
    """Whether some pair has both signs between levels, both significant after Holm's correction over all of them.

    Args:
        differences: by what stays the same, the pair, and the level at which it was compared.
    """
    differences = {key: d for key, d in differences.items() if len(d) > 1}
    levels = {key[2] for key in differences}
    if len(levels) < 2:
        return (
            "inconclusive",
            f"Only {len(levels)} {level}s can be ranked; an order depends on {level} over two at least.",
        )
    fewest = min(len(d) for d in differences.values())
    if not enough(fewest, 2):
        return "inconclusive", f"{carries_no_claim(fewest, 2)}."
    sign = orders(differences)
    for (same, pair, first), a in sign.items():
        for (other, twin, second), b in sign.items():
            if (same, pair) == (other, twin) and a < 0 < b:
                where = f"{pair[0]} is better than {pair[1]} at {first}, worse at {second}"
                return "supported", f"{where}; both differences are significant after correction over {len(sign)}."
    missing = {key[:2] for key in sign if any((*key[:2], other) not in sign for other in levels)}
    if all(sign.values()) and not missing:
        return "not supported", f"Every pair keeps its order at every {level}, each difference significant."
    decided = int(np.count_nonzero(list(sign.values())))
    some = "only " if decided < len(sign) else ""
    told = f"No pair reverses its order, and {some}{decided} of {len(sign)} differences are significant."
    if missing:
        told += f" Not compared at every {level}: {', '.join(sorted(' and '.join(pair) for _, pair in missing))}."
    least = seeds_needed(len(sign))
    return "inconclusive", told + (
        f" So many take {least} seeds; a study of fewer conditions, or of planned contrasts, asks less."
        if fewest < least
        else ""
    )


CLAIMS: dict[str, Callable[[Evidence], Verdict]] = {
    "some_condition_differs": some_condition_differs,
    "no_quality_loss": no_quality_loss,
    "contrasts_differ": contrasts_differ,
    "on_pareto_front": on_pareto_front,
    "order_depends_on_length": order_depends_on_length,
    "order_depends_on_size": order_depends_on_size,
    "takes_less_time": takes_less_time,
}
