"""A study's results in few files: everything that its analysis needs, nothing of this machine's folders."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.inputs.meta import Meta
from dsa.analysis.inputs.results import Gap
from dsa.artifacts.files import STUDY, TIMING

RUNS, JOINT = "runs.parquet", "joint.parquet"
GAPS = {RUNS: "gaps", JOINT: "joint_gaps"}
RUN_KEYS = ("label", "role", "context", "seq_len", "seed", "indexer_seed", "judge", "run_id", "study", "not_applicable")
DROPPED = (
    "folder", "reused_from", "warnings", "error", "config_hash", "corpus", "swap_selection.layers",
    "provenance.machine.system", "provenance.packages.",
)  # fmt: skip
LAYERS = "selection.layers"


def is_compact(folder: Path) -> bool:
    """Whether a folder holds compact results."""
    return (folder / RUNS).exists()


def read_compact(folder: Path, name: str) -> tuple[pd.DataFrame, tuple[Gap, ...]]:
    """One row a finished run of a file, and what has none."""
    runs = pd.read_parquet(folder / name)
    if LAYERS in runs:
        runs[LAYERS] = runs[LAYERS].map(json.loads, na_action="ignore")
    return runs, tuple(Gap(**gap) for gap in json.loads((folder / STUDY).read_text()).get(GAPS[name], []))


def packed(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs as Parquet holds them, without this machine's folders."""
    runs = runs[[name for name in runs if not str(name).startswith(DROPPED)]].copy()
    if LAYERS in runs:
        runs[LAYERS] = runs[LAYERS].map(json.dumps, na_action="ignore")
    return runs


def compact_files(
    meta: Meta, parts: dict[str, tuple[pd.DataFrame, tuple[Gap, ...]]], timing: dict[str, Any]
) -> dict[str, Any]:
    """The content of each file by name: text, or a frame to be kept as Parquet.

    Args:
        parts: runs and what has none, by the name of their file.
    """
    plan = asdict(meta)
    plan["runs"] = [{key: run[key] for key in RUN_KEYS if key in run} for run in meta.runs]
    for name, (_, gaps) in parts.items():
        plan[GAPS[name]] = [asdict(gap) for gap in gaps]
    out: dict[str, Any] = {STUDY: one_item_a_line(plan)}
    out |= {name: packed(runs) for name, (runs, _) in parts.items()}
    return out | ({TIMING: json.dumps(without_system(timing), indent=1)} if timing else {})


def one_item_a_line(plan: dict[str, Any]) -> str:
    """JSON whose long lists have one item a line."""
    parts = []
    for key, value in plan.items():
        long = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n" + ",\n".join(json.dumps(item) for item in value) + "\n]" if long else json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def without_system(record: dict[str, Any]) -> dict[str, Any]:
    """A timing record without the name of the machine's kernel."""
    return {
        length: {
            key: {k: v for k, v in value.items() if k != "system"} if key == "machine" else value
            for key, value in one.items()
        }
        for length, one in record.items()
    }
