"""Planned contrasts: a few differences between groups of conditions, named before the study ran.

Each is the mean of some conditions less that of others, within a seed, so a factor is judged by all conditions that
share it; or the sum of some less that of others, which says what two factors are worth together beyond each alone: both
and neither less one and the other. Single cells describe; these decide. Between the first and the last length they say
whether a factor's effect depends on it.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.ranking import Ranked
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.difference import Difference, difference
from dsa.analysis.statistics.paired import one_number
from dsa.analysis.statistics.power import enough
from dsa.analysis.statistics.values import ALPHA


@dataclass(frozen=True)
class Contrast:
    """One contrast at one length, or of a length with another.

    Args:
        name: as the study gives it.
        seq_len: the length; of a change between lengths, the longer.
        since: the shorter length of a change; None at one length.
        difference: conditions of `plus` less those of `minus`, on the primary metric.
        p: corrected by Holm over all contrasts and lengths of the study that are measured.
        differs: whether it is significant.
    """

    name: str
    seq_len: int
    since: int | None
    metric: str
    difference: Difference
    comparisons: int
    p: float
    differs: bool
    sentence: str


def contrasts(prepared: Prepared, field: Ranked, scale: Scale) -> list[Contrast]:
    """Every planned contrast at every length where all its conditions may be ranked, then its change over lengths.

    The correction counts those too whose conditions are measured and may not be ranked: they were planned.
    """
    found: dict[tuple[str, int, int | None], pd.Series] = {}
    silent: set[tuple[str, int | None]] = set()
    for name, planned in prepared.meta.contrasts.items():
        by_length = {
            seq_len: values
            for seq_len in prepared.lengths
            if (values := by_seed(prepared, planned, seq_len, scale)) is not None
        }
        found |= {(name, seq_len, None): values for seq_len, values in by_length.items()}
        wanted = {*planned["plus"], *planned["minus"]}
        ranked = [seq_len for seq_len in by_length if wanted <= field.known(seq_len)]
        silent |= {(name, seq_len) for seq_len in by_length if seq_len not in ranked}
        ends = ranked if len(ranked) > 1 else list(by_length)
        if len(ends) > 1:
            first, last = min(ends), max(ends)
            change = (by_length[last] - by_length[first]).dropna()
            if len(change):
                found[name, last, first] = change
    differences = [difference(values, 0.0, len(found), scale.sign) for values in found.values()]
    corrected = holm([d.p for d in differences])
    return [
        judged(key, d, p, len(found), scale)
        for key, d, p in zip(found, differences, corrected, strict=True)
        if silent.isdisjoint({key[:2], (key[0], key[2])})
    ]


def by_seed(prepared: Prepared, planned: dict[str, Any], seq_len: int, scale: Scale) -> pd.Series | None:
    """One value a seed that has every condition, one in all where each is one number for all; None without a seed."""
    wanted = [*planned["plus"], *planned["minus"]]
    table = pd.DataFrame({label: prepared.quality(label, seq_len, scale) for label in wanted}).dropna()
    if table.empty:
        return None
    if one_number(*(table[label].to_numpy() for label in wanted)):
        table = table.iloc[:1]
    difference = table[planned["plus"]].mean(axis=1) - table[planned["minus"]].mean(axis=1)
    return difference * (len(planned["plus"]) if planned.get("sums") else 1)


def judged(key: tuple[str, int, int | None], d: Difference, p: float, comparisons: int, scale: Scale) -> Contrast:
    """A contrast in words."""
    name, seq_len, since = key
    differs = enough(d.seeds, comparisons) and p < ALPHA
    where = f"at {seq_len}" if since is None else f"at {seq_len} less at {since}"
    size = d.told(scale.unit)
    verdict = "differs" if differs else "is not shown to differ"
    sentence = f"{name} {where}: {verdict}, {size}, corrected p {p:.2g} over {comparisons} contrasts."
    return Contrast(name, seq_len, since, scale.metric, d, comparisons, p, differs, sentence)
