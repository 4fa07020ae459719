"""How claims about speed are evaluated: by times taken alone, in turns, in at least five fresh processes.

"So much faster" is read as so much less time.
"""

from paper.evaluate import Evaluated, Evaluation, Verdict, at_least, not_tested
from paper.evidence import Studies, pairs
from paper.markdown import number, percent
from paper.times import WHAT, Gain


def faster(what: str, indexer: str, reference: str, least: float, length: int | None = None) -> Evaluation:
    """Less time, at one length or wherever it was timed; a speed of 150 % is a gain of a third of the time."""

    def evaluate(studies: Studies) -> list[Evaluated]:
        out = []
        for study, mine, theirs in pairs(studies, indexer, reference):
            for seq_len in study.analysis.prepared.lengths if length is None else [length]:
                gain = study.times.gain(mine, theirs, seq_len, what)
                if gain is not None:
                    verdict, why = timed(gain, least)
                    value = f"{percent(gain.share, gain.interval, sign=True)} of the time saved"
                    value += f" ({gain.reference_ms:.3g} to {gain.ms:.3g} ms)"
                    where = f"{study.name}, {seq_len}, {WHAT[what]}"
                    out.append(Evaluated(where, value, verdict, why, barred=bool(gain.obstacle)))
        where = "" if length is None else f" at {length}"
        return out or not_tested(f"{indexer} and {reference} were not timed beside each other{where}.")

    return evaluate


def timed(gain: Gain, least: float) -> tuple[Verdict, str]:
    """The verdict on a gain in time."""
    if gain.obstacle:
        return "inconclusive", gain.obstacle
    if gain.interval is None:
        return "inconclusive", "medians alone, no interval"
    return at_least(least, gain.interval), f"against a gain of at least {percent(least)}"


def gains_change(what: str, indexer: str, reference: str, sign: int) -> Evaluation:
    """Gains in time that grow (1) or shrink (-1) from the shortest length timed to the longest."""

    def evaluate(studies: Studies) -> list[Evaluated]:
        out = []
        for study, mine, theirs in pairs(studies, indexer, reference):
            gains = {n: study.times.gain(mine, theirs, n, what) for n in study.analysis.prepared.lengths}
            known = {n: gain for n, gain in gains.items() if gain is not None}
            if len(known) < 2:
                continue
            short, long = known[min(known)], known[max(known)]
            value = (
                f"{percent(short.share, sign=True)} at {min(known)}, {percent(long.share, sign=True)} at {max(known)}"
            )
            verdict, why = changed(short, long, sign)
            barred = bool(short.obstacle or long.obstacle)
            out.append(Evaluated(f"{study.name}, {WHAT[what]}", value, verdict, why, barred))
        return out or not_tested(f"{indexer} and {reference} were not timed beside each other at two lengths.")

    return evaluate


def changed(short: Gain, long: Gain, sign: int) -> tuple[Verdict, str]:
    """The verdict on a change of a gain: decided where no turn at one length gains as any turn at the other does."""
    if obstacle := short.obstacle or long.obstacle:
        return "inconclusive", obstacle
    if short.interval is None or long.interval is None:
        return "inconclusive", "medians alone, no interval"
    low, high = long.interval[0] - short.interval[1], long.interval[1] - short.interval[0]
    why = f"change {number(100 * (long.share - short.share))} [{number(100 * low)}, {number(100 * high)}] points"
    if sign * low > 0 and sign * high > 0:
        return "supported", why
    return ("not supported" if sign * low < 0 and sign * high < 0 else "inconclusive"), why
