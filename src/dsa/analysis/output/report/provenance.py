"""What made a study's results: code, machines, packages, seeds, and what is missing."""

import re
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from dsa.analysis.inputs.prepared import Prepared
from dsa.analysis.inputs.timing import machines

NUMBER = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True)
class Missing:
    """Planned runs without a result, told together."""

    label: str
    seq_len: int
    state: str
    seeds: str
    reason: str


def facts(prepared: Prepared) -> list[tuple[str, str]]:
    """Name and value of everything known; several values with how many runs have each."""
    runs = prepared.runs
    packages = [str(name) for name in runs if str(name).startswith("provenance.packages.")]
    out = [
        ("git commit of the runs", distinct(runs, "provenance.git")),
        ("fingerprint of the code", distinct(runs, "provenance.code")),
        ("machines of the runs", "; ".join(trained_on(runs))),
        ("machine of the times", "; ".join(machines(prepared.timing))),
        ("python", distinct(runs, "provenance.python")),
        ("packages", ", ".join(f"{name.split('.', 2)[2]} {distinct(runs, name)}" for name in packages)),
        ("number format", distinct(runs, "dtype")),
        ("fingerprint of the data", distinct(runs, "corpus")),
        ("seeds", ", ".join(map(str, sorted(runs["seed"].unique())))),
        ("trained beside other work", distinct(runs, "time.contended")),
    ]
    return [(name, value) for name, value in out if value]


def trained_on(runs: pd.DataFrame) -> list[str]:
    """The machines on which runs were trained."""
    rows = runs[[name for name in runs if str(name).startswith("provenance.machine.")]].drop_duplicates()
    return sorted({" · ".join(str(value) for value in row if pd.notna(value)) for row in rows.itertuples(index=False)})


def distinct(runs: pd.DataFrame, column: str) -> str:
    """The values of a column; with their counts if there are several."""
    counts: Counter[str] = Counter(map(str, runs[column].dropna())) if column in runs else Counter()
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def missing(prepared: Prepared) -> list[Missing]:
    """Gaps by condition, length, state and reason, in the study's order."""
    seeds: dict[tuple[str, int, str, str], list[int]] = {}
    for gap in prepared.gaps:
        seeds.setdefault((gap.label, gap.seq_len, gap.state, gap.reason), []).append(gap.seed)
    return [
        Missing(label, seq_len, state, ", ".join(map(str, sorted(mine))), reason)
        for (label, seq_len, state, reason), mine in seeds.items()
    ]


def warnings(prepared: Prepared) -> list[tuple[str, int]]:
    """What the runs themselves warned of, and how many did; told once where only numbers differ."""
    if "warnings" not in prepared.runs:
        return []
    every = [str(w) for mine in prepared.runs["warnings"] if isinstance(mine, list) for w in mine]
    alike: dict[str, list[str]] = {}
    for text in every:
        alike.setdefault(NUMBER.sub("", text), []).append(text)
    return [(texts[0] + (" (and the like)" if len(set(texts)) > 1 else ""), len(texts)) for texts in alike.values()]
