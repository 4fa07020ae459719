"""Which conditions may be ranked at a length, and the differences between any two of them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.judgement.discriminate import Discrimination, rankable
from dsa.analysis.judgement.guards import Guard, blocked
from dsa.analysis.statistics.correction import holm
from dsa.analysis.statistics.paired import one_number
from dsa.analysis.statistics.power import enough
from dsa.analysis.statistics.sign_flip import sign_flip
from dsa.analysis.statistics.values import ALPHA, Array


@dataclass(frozen=True)
class Ranked:
    """Conditions to rank, by length and context, each of several identical ones once.

    Args:
        twins: those that another of equal numbers stands for.
    """

    fields: dict[tuple[int, str], list[str]]
    twins: dict[tuple[int, str], set[str]] = field(default_factory=dict)

    def __getitem__(self, place: tuple[int, str]) -> list[str]:
        return self.fields.get(place, [])

    def known(self, seq_len: int) -> set[str]:
        """Everything at a length whose numbers may be compared, by whichever of several equal names."""
        places = [place for place in self.fields if place[0] == seq_len]
        return {label for place in places for label in (*self.fields[place], *self.twins.get(place, ()))}


def ranked(prepared: Prepared, found: list[Discrimination], known: list[Guard]) -> Ranked:
    """What may be ranked, given what can be discriminated and what the guards block."""
    out: dict[tuple[int, str], list[str]] = {}
    alike: dict[tuple[int, str], set[str]] = {}
    for seq_len, context in sorted(rankable(found)):
        silent = blocked(known, seq_len)
        twins = {
            label
            for g in known
            if g.name == "identical conditions" and g.seq_len == seq_len
            for label in g.labels
            if label != next((one for one in g.labels if one == prepared.meta.reference(one)), g.labels[0])
        }
        labels = prepared.conditions(seq_len, context)
        out[seq_len, context] = [label for label in labels if label not in silent | twins]
        alike[seq_len, context] = {label for label in labels if label in twins - silent}
    return Ranked(out, alike)


def pairwise(prepared: Prepared, labels: list[str], seq_len: int, scale: Scale) -> dict[tuple[str, str], Array]:
    """Differences by seed of every two conditions, positive where the first is worse."""
    values = {label: prepared.quality(label, seq_len, scale) * scale.sign for label in labels}
    return once(apart(values, itertools.combinations(labels, 2)), values)


def apart(values: dict[str, pd.Series], pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Array]:
    """The first less the second of each pair, over the seeds (or turns) that both have."""
    columns = {label: column.to_numpy(float) for label, column in pd.DataFrame(values).items()}
    differences = {(a, b): columns[a] - columns[b] for a, b in pairs}
    return {pair: d[~np.isnan(d)] for pair, d in differences.items()}


def once(differences: dict[tuple[str, str], Array], values: dict[str, pd.Series]) -> dict[tuple[str, str], Array]:
    """Of two that are one number for all seeds, and not the same, the first difference alone."""
    still = {label for label, by_seed in values.items() if one_number(by_seed.to_numpy())}
    return {pair: d[:1] if d.any() and still.issuperset(pair) else d for pair, d in differences.items()}


def orders(differences: dict[tuple, Array]) -> dict[tuple, int]:
    """The sign of each difference that is significant after Holm's correction over all of them; else 0."""
    p = dict(zip(differences, holm([sign_flip(d) for d in differences.values()]), strict=True))
    return {
        key: int(np.sign(d.mean())) if p[key] < ALPHA and enough(len(d), 1) else 0 for key, d in differences.items()
    }
