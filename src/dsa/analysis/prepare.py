"""A study's runs as one table that the statistics can ask, and the list of what it lacks."""

import functools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.meta import CONTROLS, Meta, read_meta
from dsa.analysis.scale import Scale
from dsa.analysis.timing import read_timing

RESULT = "result.json"


@dataclass(frozen=True)
class Gap:
    """A planned run without a result. state: missing, failed, or not applicable."""

    label: str
    seq_len: int
    seed: int
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Prepared:
    """A study's finished runs.

    Args:
        runs: one row a finished run: its result, with label, kind (condition, or which control) and context.
        timing: times taken alone, in turns, by length.
    """

    meta: Meta
    runs: pd.DataFrame
    gaps: tuple[Gap, ...] = ()
    timing: dict[str, Any] = field(default_factory=dict)

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
        rows = self.rows(label, seq_len)
        values = rows[name] if name in rows else pd.Series(dtype=float)
        return pd.to_numeric(values, errors="coerce").dropna().astype(float)

    def quality(self, label: str, seq_len: int, scale: Scale) -> pd.Series:
        """A condition's quality by seed; dense attention with the backbone untouched is the base itself."""
        if self.meta.control(label) == "dense" and scale.metric.startswith("swap_"):
            return self.column(label, seq_len, scale.dense)
        return self.column(label, seq_len, scale.metric)

    def control(self, kind: str, context: str) -> str | None:
        """Label of a context's control."""
        mine = self.runs[(self.runs["kind"] == kind) & (self.runs["context"] == context)]
        return None if mine.empty else str(mine["label"].iloc[0])

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
    """The study in a folder, as far as it is finished.

    Raises:
        FileNotFoundError: the folder holds no study.json.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    found = assemble(meta, [result_of(folder, run) for run in meta.runs])
    return replace(found, timing=read_timing(folder))


def result_of(folder: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """A planned run's result, here or where another study trained it; None if there is none yet."""
    if not run.get("run_id"):
        return None
    for place in (folder, folder.parent / str(run.get("study") or "")):
        path = place / run["run_id"] / RESULT
        if path.exists():
            try:
                return json.loads(path.read_text()) | {"folder": str(path.parent)}
            except json.JSONDecodeError:
                return {"status": "failed", "error": {"category": "damaged", "reason": f"{path} cannot be read"}}
    return None


def assemble(meta: Meta, results: list[dict[str, Any] | None]) -> Prepared:
    """Planned runs and their results, in the plan's order, as a table and a list of gaps."""
    rows, gaps = [], []
    for run, result in zip(meta.runs, results, strict=True):
        if run.get("role") == "base":
            continue
        key = (run["label"], int(run["seq_len"]), int(run["seed"]))
        if run.get("not_applicable"):
            gaps.append(Gap(*key, "not applicable", run["not_applicable"]))
        elif result is None:
            gaps.append(Gap(*key, "missing"))
        elif result.get("status") != "finished":
            error = result.get("error") or {}
            gaps.append(
                Gap(*key, "failed", ": ".join(str(v) for v in (error.get("category"), error.get("reason")) if v))
            )
        else:
            own = {"label": key[0], "seq_len": key[1], "seed": key[2]}
            rows.append({**result, **own, "kind": meta.control(key[0]) or "condition", "context": meta.context(key[0])})
    columns = ["label", "kind", "context", "seq_len", "seed"]
    frame = pd.json_normalize(rows) if rows else pd.DataFrame(columns=columns)
    order = {run["label"]: place for place, run in reversed(list(enumerate(meta.runs)))}
    frame = frame.sort_values(["seq_len", "label", "seed"], key=lambda c: c.map(order) if c.name == "label" else c)
    frame = frame.drop_duplicates(["label", "seq_len", "seed"]).reset_index(drop=True)
    return Prepared(meta, frame[columns + [name for name in frame if name not in columns]], tuple(gaps))
