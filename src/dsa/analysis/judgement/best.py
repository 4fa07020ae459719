"""What to use at each length: the cheapest condition that was shown to lose nothing, or the best, said to be no more.

Loss is counted against the baseline, which the study named before it ran. What was not shown to be worse is not
recommended for that: a condition that fails in some seeds can hardly be shown to be worse. Where nothing cheaper than
the baseline is shown to lose nothing, the baseline stays; that dearer ones lose nothing against it certifies nothing of
it, and where it is shown to be worse than another it is said so.
"""

from dataclasses import dataclass

import numpy as np

from dsa.analysis.inputs.cost import COSTS, cost_of
from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.compare import Comparison
from dsa.analysis.judgement.ranking import Ranked
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.intervals import bootstrap_interval
from dsa.analysis.statistics.paired import paired
from dsa.analysis.statistics.power import enough
from dsa.analysis.statistics.sign_flip import sign_flip
from dsa.analysis.statistics.values import ALPHA

LOSSLESS = "shown to lose nothing"
BASELINE = "the baseline: nothing cheaper is shown to lose nothing"
BEHIND = "the baseline: nothing cheaper is shown to lose nothing, and another is shown to be better"
ONLY_BEST = "only the best measured here, not shown to lose nothing"


@dataclass(frozen=True)
class Best:
    """The answer for one length and context; best and recommended are None where nothing may be ranked.

    Args:
        best: the condition of the best mean over the seeds that all have.
        lossless: shown to lose nothing against the baseline, on the primary metric.
        worse: shown to be worse than the best, corrected by Holm over the others.
        recommended: the cheapest of the lossless and the baseline, by operations, then by indexer parameters, then by
            its mean; the best if none is lossless.
        alike: others of the lossless that cost the same, which is all that chose between them.
        standing: what the recommendation is worth; None where there is none.
        shown: whether the recommended one was shown to lose nothing, or is the baseline beside others that
            were, and nothing is shown to beat it.
    """

    seq_len: int
    context: str
    metric: str
    best: str | None
    mean: float | None
    interval: tuple[float, float] | None
    seeds: int
    lossless: tuple[str, ...]
    worse: tuple[str, ...]
    recommended: str | None
    alike: tuple[str, ...]
    standing: str | None
    shown: bool
    sentence: str


def bests(prepared: Prepared, field: Ranked, scale: Scale, comparisons: list[Comparison]) -> list[Best]:
    """The answer at every length and context that has finished runs.

    Args:
        comparisons: with the baseline, on the primary metric, where ranking is allowed.
    """
    return [
        best(prepared, field[seq_len, context], seq_len, context, scale, comparisons)
        for seq_len in prepared.lengths
        for context in prepared.contexts
        if prepared.conditions(seq_len, context)
    ]


def best(
    prepared: Prepared, labels: list[str], seq_len: int, context: str, scale: Scale, comparisons: list[Comparison]
) -> Best:
    """Among conditions, over the seeds that all of them have; one that has fewer than half of the most that any has is
    left out, so that it does not take the others' seeds along.

    The best was chosen for its mean, so that the tests against it lean towards calling others worse.
    """
    values = {label: prepared.quality(label, seq_len, scale) for label in labels}
    most = max(map(len, values.values()), default=0)
    few = [label for label, v in values.items() if 2 * len(v) < most]
    values = {label: v for label, v in values.items() if len(v) and label not in few}
    where = f"At {seq_len}" + (f" ({context})" if context else "")
    seeds = sorted(set.intersection(*(set(v.index) for v in values.values()))) if values else []
    if not seeds:
        nothing = f"{where}: nothing is ranked, so nothing is recommended."
        return Best(seq_len, context, scale.metric, None, None, None, 0, (), (), None, (), None, False, nothing)
    shared = {label: v.loc[seeds] for label, v in values.items()}
    top = min(shared, key=lambda label: scale.sign * shared[label].mean())
    others = [label for label in shared if label != top]
    p = holm([sign_flip(paired(shared[label], shared[top]).to_numpy()) for label in others])
    certain = enough(len(seeds), len(others))
    worse = tuple(label for label, q in zip(others, p, strict=True) if certain and q < ALPHA)
    mine = {c.label: c for c in comparisons if c.seq_len == seq_len and c.label in shared}
    lossless = tuple(label for label, c in mine.items() if c.loses_nothing)
    baseline = prepared.meta.reference(top)
    candidates = [label for label in (baseline, *lossless) if label in shared]
    prices = {label: price(prepared, label, seq_len) for label in candidates}
    chosen = min(candidates, key=lambda one: (prices[one], scale.sign * shared[one].mean())) if lossless else top
    alike = tuple(one for one in candidates if lossless and one != chosen and prices[one] == prices[chosen])
    if not lossless:
        standing = ONLY_BEST
    elif chosen != baseline:
        standing = LOSSLESS
    else:
        standing = BEHIND if baseline in worse else BASELINE
    return Best(
        seq_len=seq_len,
        context=context,
        metric=scale.metric,
        best=top,
        mean=float(shared[top].mean()),
        interval=bootstrap_interval(shared[top].to_numpy()),
        seeds=len(seeds),
        lossless=lossless,
        worse=worse,
        recommended=chosen,
        alike=alike,
        standing=standing,
        shown=standing in (LOSSLESS, BASELINE),
        sentence=f"{where}: {reason(chosen, baseline, top, alike, standing, mine.get(chosen), len(seeds))}"
        + (f" Left out, as few of their seeds are finished: {', '.join(few)}." if few else ""),
    )


def price(prepared: Prepared, label: str, seq_len: int) -> tuple[float, float]:
    """What cheap means: operations, then indexer parameters; unmeasured is dearest."""
    found = [cost_of(prepared, label, seq_len, COSTS[name]) for name in ("flops", "indexer_params")]
    operations, parameters = (float(cost.mean()) if len(cost) else np.inf for cost in found)
    return operations, parameters


def reason(
    chosen: str,
    baseline: str,
    top: str,
    alike: tuple[str, ...],
    standing: str,
    compared: Comparison | None,
    seeds: int,
) -> str:
    """What the recommendation rests on."""
    if standing == ONLY_BEST:
        named = f"{chosen}, the baseline" if chosen == baseline else chosen
        return f"{named}: {ONLY_BEST}{near(compared, baseline) or f' ({seeds} seeds)'}."
    same = f" As cheap: {', '.join(alike)}." if alike else ""
    if compared is None:
        worse = f", and it is shown to be worse than {top}" if standing == BEHIND else ""
        return (
            f"{chosen}, the baseline: nothing cheaper is shown to lose nothing against it{worse} ({seeds} seeds).{same}"
        )
    return f"{chosen}: the cheapest that is shown to lose nothing against {baseline}{near(compared, baseline)}.{same}"


def near(compared: Comparison | None, baseline: str) -> str:
    """How many seeds lie within the margin of the baseline."""
    if compared is None or compared.difference.within is None:
        return ""
    d = compared.difference
    return f" ({d.within} of {d.seeds} seeds within {compared.margin:g} of {baseline})"
