"""The questions that people ask, each answered at length."""

from dsa.analysis.inputs.scale import SCALES
from dsa.analysis.judgement.analysis import Analysis
from dsa.analysis.judgement.discriminate import rankable
from dsa.analysis.output.report.answer import claimed
from paper import formats
from paper.evidence import Studies, pairs, places
from paper.markdown import capital, framed, percent, table
from paper.smallest import ladder, only_indexers, smallest
from paper.tables import best, joined
from paper.times import WHAT

BASELINE, REDUCED = "h4d64", "h2d32"
INDEXERS, FORMATS, NOISE = "optimal_indexer_config", "quantization_effectiveness", "noise_control"
NOT_RUN = "Not run."


def smallest_indexer(studies: Studies) -> list[str]:
    """Question 1, from every study that compares indexers and nothing else."""
    out = []
    for study in studies.values():
        analysis = study.analysis
        meta = analysis.prepared.meta
        if not only_indexers(analysis) or study.name == NOISE or BASELINE not in meta.conditions:
            continue
        measured = {c.metric for c in analysis.comparisons}
        metrics = [m for m in dict.fromkeys((meta.metric, "val_loss", "val_accuracy")) if m in measured]
        for metric in metrics:
            out.append(f"{study.name}, `{metric}` ({SCALES[metric].meaning}):")
            out += [f"- {capital(found.sentence)}" for found in smallest(analysis, metric)]
        for length in analysis.prepared.lengths:
            if metrics and (length, "") in rankable(analysis.discrimination):
                out += [f"{study.name} at {length}, differences from {BASELINE}:", ladder(analysis, metrics, length)]
    return out or [NOT_RUN]


def best_by_length(studies: Studies) -> list[str]:
    """Question 2."""
    if INDEXERS not in studies:
        return [NOT_RUN]
    analysis = studies[INDEXERS].analysis
    lines = [
        f"{asked(analysis)} Below: the cheapest that is shown to lose nothing against the baseline; if there is none, "
        "the best mean, which is no more than that."
    ]
    return [*lines, framed(joined(best(analysis)))] if analysis.best else lines


def asked(analysis: Analysis) -> str:
    """What the study itself claimed, and what became of that."""
    return f"The study's own claim, that {claimed(analysis)}: **{analysis.answer}**. {analysis.sentence}"


def number_formats(studies: Studies) -> list[str]:
    """Question 3, on the primary metric and after joint training."""
    if FORMATS not in studies:
        return [NOT_RUN]
    analysis = studies[FORMATS].analysis
    meta = analysis.prepared.meta
    out = [
        "Each format against fp32 of the same indexer, corrected over all such comparisons at a length. The rounding "
        "is simulated in float32 arithmetic: these are quality numbers, not speed numbers. "
        f"{asked(analysis)}"
    ]
    if not rankable(analysis.discrimination):
        return out
    measured = {c.metric for c in analysis.comparisons}
    for metric in [m for m in dict.fromkeys((meta.metric, "val_loss")) if m in measured]:
        compared, unit = formats.against_exact(analysis, metric), SCALES[metric].unit
        names = formats.formats(analysis)
        out.append(f"`{metric}` ({SCALES[metric].meaning}):")
        out += [f"- {formats.sentence(name, formats.of_format(analysis, name, compared), unit)}" for name in names]
        if compared:
            out.append(formats.grid(analysis, compared, unit))
    return out


def time_bought(studies: Studies) -> list[str]:
    """Question 4, from times taken alone."""
    rows: list[tuple[str, ...]] = []
    machines: set[str] = set()
    every = pairs(studies, REDUCED, BASELINE)
    for length in sorted({n for study, _, _ in every for n in study.analysis.prepared.lengths}):
        for study, mine, theirs in every:
            for what in WHAT:
                gain = study.times.gain(mine, theirs, length, what)
                if gain is not None:
                    machines.add(study.times.machine())
                    note = f"{gain.obstacle}: not ranked" if gain.obstacle else ""
                    saved = percent(gain.share, gain.interval, sign=True)
                    rows.append((str(length), study.name, WHAT[what], f"{gain.reference_ms:.3g}", f"{gain.ms:.3g}",
                                 saved, note))  # fmt: skip
    parameters = reduction(studies)
    if not rows:
        return [*parameters, "Not run: no study holds times taken alone for both."]
    heads = ["length", "study", "what", f"{BASELINE} [ms]", f"{REDUCED} [ms]", "time saved", ""]
    return [
        *parameters,
        f"Measured alone, in turns, on {'; '.join(sorted(machines))}; the time saved is that of these medians, its "
        "interval goes from the least to the greatest turn. A training step has a whole batch, the forward pass one "
        "row.",
        table(heads, rows),
    ]


def reduction(studies: Studies) -> list[str]:
    """What is counted rather than measured: indexer parameters of both, and operations."""
    out = []
    for study, mine, _, length in places(studies, REDUCED, BASELINE):
        row = next(e for e in study.analysis.efficiency if (e.label, e.seq_len) == (mine, length))
        if row.parameters is not None and row.operations is not None:
            out.append(
                f"- {study.name} at {length}, counted: indexer parameters "
                f"{percent(row.parameters - 1, sign=True, digits=2)}, operations of attention with its indexer "
                f"{percent(row.operations - 1, sign=True)}."
            )
    return out


def random_tokens(studies: Studies) -> list[str]:
    """Question 5."""
    if NOISE not in studies:
        return [NOT_RUN]
    analysis = studies[NOISE].analysis
    return [
        f"**{analysis.answer}**: {analysis.sentence}",
        *(f"- {capital(d.sentence)}" for d in analysis.discrimination),
    ]
