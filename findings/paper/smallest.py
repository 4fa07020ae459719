"""The smallest indexer that is shown to lose nothing against the baseline's."""

from dataclasses import dataclass

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.compare import Comparison
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.judgement.guards import blocked
from dsa.analysis.output.report.words import listed
from dsa.analysis.output.terminal import within
from paper.markdown import percent, signed, table, verdict, visible


@dataclass(frozen=True)
class Smallest:
    """The answer at one length, on one scale.

    Args:
        label: the smallest indexer that is shown to lose nothing against the baseline; None if none is.
        parameters, share: its indexer parameters in all layers, and over the baseline's.
        smaller: comparisons of the indexers with fewer parameters than the answer (without one: than the baseline).
    """

    seq_len: int
    metric: str
    label: str | None
    parameters: float | None
    share: float | None
    comparison: Comparison | None
    smaller: tuple[Comparison, ...]
    sentence: str


def only_indexers(analysis: Analysis) -> bool:
    """Whether a study's conditions differ in nothing but the indexer."""
    meta = analysis.prepared.meta
    return all(set(options) == {"indexer"} for options in meta.conditions.values())


def smallest(analysis: Analysis, metric: str) -> list[Smallest]:
    """The answer at every length, on one scale."""
    return [at_length(analysis, metric, length) for length in analysis.prepared.lengths]


def at_length(analysis: Analysis, metric: str, seq_len: int) -> Smallest:
    """The answer at one length."""
    prepared = analysis.prepared
    silent = blocked(analysis.guards, seq_len)

    def parameters(label: str) -> float:
        return float(cost_of(prepared, label, seq_len, COSTS["indexer_params"]).mean())

    if (seq_len, "") not in rankable(analysis.discrimination):
        why = next((d.sentence.split(": ", 1)[1] for d in analysis.discrimination if d.seq_len == seq_len), "no runs.")
        return Smallest(seq_len, metric, None, None, None, None, (), f"at {seq_len}: cannot discriminate: {why}")
    baseline = prepared.meta.baseline
    mine = [c for c in analysis.comparisons if (c.metric, c.seq_len) == (metric, seq_len) and c.label not in silent]
    whole = parameters(baseline)
    field = sorted((c for c in mine if parameters(c.label) < whole), key=lambda c: parameters(c.label))
    answer = next((c for c in field if c.loses_nothing), None)
    size = None if answer is None else parameters(answer.label)
    smaller = tuple(c for c in field if size is None or parameters(c.label) < size)
    share = None if size is None else size / whole
    label = None if answer is None else answer.label
    sentence = worded(answer, size, share, smaller, seq_len, baseline, SCALES[metric].unit)
    return Smallest(seq_len, metric, label, size, share, answer, smaller, sentence)


def ladder(analysis: Analysis, metrics: list[str], seq_len: int) -> str:
    """Every indexer from the smallest up, against the baseline on each scale, and in how many seeds it came near it."""
    prepared = analysis.prepared
    baseline = prepared.meta.baseline
    parameters = {
        label: float(cost_of(prepared, label, seq_len, COSTS["indexer_params"]).mean())
        for label in prepared.conditions(seq_len)
    }
    found = {(c.label, c.metric): c for c in analysis.comparisons if c.seq_len == seq_len}
    rows = []
    for label in sorted(parameters, key=lambda one: parameters[one]):
        cells = [label, f"{parameters[label]:,.0f}"]
        for metric in metrics:
            if label == baseline:
                cells += ["baseline", ""]
            elif (label, metric) in found:
                c = found[label, metric]
                cells += [verdict(c, SCALES[metric].unit), within(c.difference)]
            else:
                cells += ["not run", ""]
        rows.append(cells)
    heads = [head for metric in metrics for head in (f"`{metric}`", "seeds within margin")]
    return table(["indexer", "parameters", *heads], rows)


def worded(
    answer: Comparison | None,
    size: float | None,
    share: float | None,
    smaller: tuple[Comparison, ...],
    seq_len: int,
    baseline: str,
    unit: str,
) -> str:
    """The answer as a sentence."""
    rest = about(smaller, unit)
    if answer is None or size is None or share is None:
        if not smaller:
            return f"at {seq_len}: not run: no smaller indexer has been compared with {baseline}."
        if all(c.word == "worse" for c in smaller):
            return f"at {seq_len}: none; every smaller indexer is worse than {baseline}. {rest}"
        return f"at {seq_len}: inconclusive; none was shown to lose nothing against {baseline}. {rest}"
    d = answer.difference
    return (
        f"at {seq_len}: **{answer.label}** ({signed(d.mean, d.interval, unit)}, margin "
        f"{answer.margin:g}, {d.seeds} seeds), with {size:,.0f} indexer parameters, {percent(share)} of {baseline}'s. "
        f"{rest}"
    ).strip()


def about(smaller: tuple[Comparison, ...], unit: str) -> str:
    """What became of the indexers that are smaller still."""
    by_word = {word: [c for c in smaller if c.word == word] for word in ("worse", "inconclusive")}
    out = []
    if by_word["worse"]:
        out.append(f"Worse: {listed(c.label for c in by_word['worse'])}.")
    if by_word["inconclusive"]:
        out.append(
            f"Inconclusive: {listed(c.label for c in by_word['inconclusive'])} (smallest effect that could have been "
            f"seen: {visible(by_word['inconclusive'])} {unit})."
        )
    return " ".join(out)
