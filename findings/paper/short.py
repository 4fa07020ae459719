"""The same questions, a line each."""

from paper import formats
from paper.answers import BASELINE, FORMATS, INDEXERS, NOISE, REDUCED, asked
from paper.evidence import Studies, pairs
from paper.markdown import percent
from paper.smallest import smallest
from paper.times import WHAT


def in_short(studies: Studies) -> list[str]:
    """One line a question."""
    out = []
    if INDEXERS in studies:
        analysis = studies[INDEXERS].analysis
        found = smallest(analysis, analysis.prepared.meta.metric)
        out += [f"- Smallest indexer that loses nothing against {BASELINE} {one.sentence}" for one in found]
        out.append(f"- Best configuration by length. {asked(analysis)}")
    else:
        out.append(f"- Smallest indexer that loses nothing against {BASELINE}, and the best by length: not run.")
    if FORMATS in studies:
        analysis = studies[FORMATS].analysis
        compared = formats.against_exact(analysis, analysis.prepared.meta.metric)
        told = f"{formats.summary(analysis, compared)}." if compared else asked(analysis)
        out.append(f"- Number formats against fp32, `{analysis.prepared.meta.metric}`: {told}")
    else:
        out.append("- Number formats: not run.")
    out += [f"- {line}" for line in gains(studies)] or [f"- Time that {REDUCED} saves over {BASELINE}: not run."]
    noise = studies[NOISE].analysis if NOISE in studies else None
    out += [f"- Planned contrasts, {name}: {' '.join(told)}" for name, told in contrasts(studies).items()]
    return [*out, f"- Random tokens: {'not run.' if noise is None else f'**{noise.answer}**. {noise.sentence}'}"]


def gains(studies: Studies) -> list[str]:
    """The time saved in training and inference, by length."""
    out = []
    for study, mine, theirs in pairs(studies, REDUCED, BASELINE):
        for length in study.analysis.prepared.lengths:
            taken = {what: study.times.gain(mine, theirs, length, what) for what in ("step_ms", "infer_ms")}
            saved = [
                f"{WHAT[what]} {percent(gain.share, gain.interval, sign=True)}"
                + (f" ({gain.obstacle})" if gain.obstacle else "")
                for what, gain in taken.items()
                if gain is not None
            ]
            if saved:
                out.append(f"Time that {REDUCED} saves over {BASELINE} at {length} ({study.name}): {', '.join(saved)}.")
    return out


def contrasts(studies: Studies) -> dict[str, list[str]]:
    """What each study's planned contrasts say."""
    said = {name: [c.sentence for c in study.analysis.contrasts] for name, study in studies.items()}
    return {name: told for name, told in said.items() if told}
