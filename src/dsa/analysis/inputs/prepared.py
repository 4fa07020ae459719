"""A study's runs as one table that can be asked by condition, length and seed, and the list of what it lacks."""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.inputs.compact import JOINT, RUNS, is_compact, read_compact
from dsa.analysis.inputs.meta import Meta, read_meta
from dsa.analysis.inputs.results import Gap, counts, read_results, tidy
from dsa.analysis.inputs.scale import Scale
from dsa.analysis.inputs.timing import read_timing
from dsa.artifacts.names import CONTROLS


@dataclass(frozen=True)
class Prepared:
    """A study's finished runs.

    Args:
        runs: one row a finished run: its result, with label, kind (condition, or which control) and context.
        timing: times taken alone, in turns, by length.
        joint: what joint training came to, where the metric judges the untouched backbone and runs had both: of
            finalists on fresh seeds, or of all conditions.
    """

    meta: Meta
    runs: pd.DataFrame
    gaps: tuple[Gap, ...] = ()
    timing: dict[str, Any] = field(default_factory=dict)
    joint: "Prepared | None" = None

    @functools.cached_property
    def groups(self) -> dict[tuple, pd.DataFrame]:
        """Runs by label and length, each by seed."""
        grouped = self.runs.groupby(["label", "seq_len"], sort=False)
        return {key: rows.set_index("seed").sort_index() for key, rows in grouped}

    @functools.cached_property
    def lengths(self) -> list[int]:
        return sorted(int(length) for length in self.runs["seq_len"].unique())

    @property
    def contexts(self) -> list[str]:
        return list(dict.fromkeys(self.meta.context(label) for label in self.meta.conditions))

    def conditions(self, seq_len: int, context: str | None = None) -> list[str]:
        """Labels of the conditions with a finished run at a length, in the study's order."""
        here = set(self.runs.loc[self.runs["seq_len"] == seq_len, "label"])
        return [c for c in self.meta.conditions if c in here and context in (None, self.meta.context(c))]

    def labels(self, seq_len: int) -> list[str]:
        """Conditions, then controls, with a finished run at a length."""
        here = self.runs[(self.runs["seq_len"] == seq_len) & (self.runs["kind"] != "condition")]
        return self.conditions(seq_len) + sorted(here["label"].unique(), key=lambda name: (self.kind_order(name), name))

    def kind_order(self, label: str) -> int:
        return CONTROLS.index(self.meta.control(label) or CONTROLS[-1])

    def rows(self, label: str, seq_len: int) -> pd.DataFrame:
        """A condition's runs at a length, by seed."""
        return self.groups.get((label, seq_len), self.runs.iloc[:0])

    def column(self, label: str, seq_len: int, name: str) -> pd.Series:
        """What a condition's runs measured, by seed; runs that did not measure it are left out."""
        key = (label, seq_len, name)
        if key not in self.asked:
            rows = self.rows(label, seq_len)
            values = rows[name] if name in rows else pd.Series(dtype=float)
            self.asked[key] = pd.to_numeric(values, errors="coerce").dropna().astype(float)
        return self.asked[key]

    @functools.cached_property
    def asked(self) -> dict[tuple[str, int, str], pd.Series]:
        """Columns that were asked for, which every table and figure asks for again."""
        return {}

    def quality(self, label: str, seq_len: int, scale: Scale) -> pd.Series:
        """A condition's quality by seed; dense attention with the backbone untouched is the base itself."""
        if self.meta.control(label) == "dense" and scale.metric.startswith("swap_"):
            return self.column(label, seq_len, scale.dense)
        return self.column(label, seq_len, scale.metric)

    @property
    def pretrained(self) -> bool:
        """Whether the runs carry the certificate of a pretrained model."""
        return any(str(column).startswith("certificate.") for column in self.runs)

    @property
    def models(self) -> list[str]:
        """The models that runs stand on."""
        return sorted(self.runs["model"].dropna().unique()) if "model" in self.runs else []

    def control(self, kind: str, context: str) -> str | None:
        """Label of a context's control."""
        return self.controls.get((kind, context))

    @functools.cached_property
    def controls(self) -> dict[tuple[str, str], str]:
        """The label of each control with a finished run, by kind and context."""
        rows = self.runs[["kind", "context", "label"]].drop_duplicates(["kind", "context"])
        return {(kind, context): label for kind, context, label in rows.itertuples(index=False)}

    def dense(self, label: str, seq_len: int, scale: Scale) -> pd.Series:
        """Dense attention beside each of a condition's runs, by seed."""
        own = self.column(label, seq_len, scale.dense)
        control = self.control("dense", self.meta.context(label))
        return own if control is None else own.combine_first(self.quality(control, seq_len, scale))

    def opponent(self, kind: str, label: str, seq_len: int, scale: Scale) -> pd.Series:
        """The random or the window control of a condition, by seed; a window at its own budget where there is one."""
        control = self.control(kind, self.meta.context(label))
        theirs = pd.Series(dtype=float) if control is None else self.quality(control, seq_len, scale)
        if kind != "window" or scale.window is None:
            return theirs
        return self.column(label, seq_len, scale.window).combine_first(theirs)


def prepare(folder: str | Path) -> Prepared:
    """The study in a folder, as far as it is finished; from its compact results where it holds those.

    Raises:
        FileNotFoundError: the folder holds no study.json.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    if is_compact(folder):
        joint = Prepared(after_joint(meta), *read_compact(folder, JOINT)) if (folder / JOINT).exists() else None
        return Prepared(meta, *read_compact(folder, RUNS), read_timing(folder), joint)
    return replace(assemble(meta, read_results(folder, meta)), timing=read_timing(folder))


def assemble(meta: Meta, results: list[dict[str, Any] | None]) -> Prepared:
    """Planned runs and their results, in the plan's order."""
    later = after_joint(meta)
    both = later != meta and any(counts(run, later) and not counts(run, meta) for run in meta.runs)
    return Prepared(meta, *tidy(meta, results), joint=Prepared(later, *tidy(later, results)) if both else None)


def after_joint(meta: Meta) -> Meta:
    """The same study, asked what joint training came to; contrasts were planned for its own metric."""
    return replace(meta, metric=meta.metric.removeprefix("swap_"), contrasts={})
