"""Results of runs, turned into the tidy frame that everything else asks: the only place that knows their files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.inputs.meta import Meta
from dsa.artifacts.files import RESULT
from dsa.artifacts.results import SCHEMA, told_apart


@dataclass(frozen=True)
class Gap:
    """A planned run without a result. state: missing, failed, or not applicable."""

    label: str
    seq_len: int
    seed: int
    state: str
    reason: str = ""


def read_results(folder: Path, meta: Meta) -> list[dict[str, Any] | None]:
    """The result of every planned run of the study in a folder, in the plan's order."""
    return [result_of(folder, run) for run in meta.runs]


def result_of(folder: Path, run: dict[str, Any]) -> dict[str, Any] | None:
    """A planned run's result, here or where another study trained it; None if there is none yet."""
    if not run.get("run_id"):
        return None
    for place in (folder, folder.parent / str(run.get("study") or "")):
        path = place / run["run_id"] / RESULT
        if path.exists():
            try:
                result = json.loads(path.read_text())
            except json.JSONDecodeError:
                return failed("damaged", f"{path} cannot be read")
            if result.get("schema") != SCHEMA:
                return failed("other version", f"its result has {told_apart(result.get('schema'))}")
            return result | {"folder": str(path.parent)}
    return None


def failed(category: str, reason: str) -> dict[str, Any]:
    """What stands for a result that cannot be used."""
    return {"status": "failed", "error": {"category": category, "reason": reason}}


def counts(run: dict[str, Any], meta: Meta) -> bool:
    """Whether a run says anything about the study's metric.

    What was judged to choose finalists stands for the untouched backbone alone; what comes after joint training is
    read off the runs that had it, which are those of fresh seeds where finalists were chosen.
    """
    judged = {str(one.get("judge")) for one in meta.runs}
    if len(judged) < 2:
        return True
    return (run.get("judge") == "swap") == meta.metric.startswith("swap_")


def one_a_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a condition, length and seed: several draws of the indexers on one base are averaged, for the unit is
    the seed."""
    key = ["label", "seq_len", "seed"]
    if not frame.duplicated(key).any():
        return frame.reset_index(drop=True)
    frame = frame.drop_duplicates([*key, *(["run_id"] if "run_id" in frame else [])])
    numbers = [str(name) for name in frame.select_dtypes("number") if name not in key]
    groups = frame.groupby(key, sort=False)
    first = groups.head(1).set_index(key)
    first[numbers] = groups[numbers].mean()
    return first.reset_index()


def tidy(meta: Meta, results: list[dict[str, Any] | None]) -> tuple[pd.DataFrame, tuple[Gap, ...]]:
    """One row a condition, length and seed, in the plan's order, and what has none; see `every_run`."""
    frame, gaps = every_run(meta, results)
    return one_a_seed(frame), gaps


def every_run(meta: Meta, results: list[dict[str, Any] | None]) -> tuple[pd.DataFrame, tuple[Gap, ...]]:
    """One row a finished run, in the plan's order, and what has none.

    A row has its run's label, kind (condition, or which control), context, seq_len and seed, and all that its result
    holds, nested values under dotted names.
    """
    rows, gaps = [], []
    for run, result in zip(meta.runs, results, strict=True):
        if run.get("role") == "base" or not counts(run, meta):
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
    return frame[columns + [name for name in frame if name not in columns]], tuple(gaps)
