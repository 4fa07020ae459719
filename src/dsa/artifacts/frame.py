"""A study's results as a table. Imports no torch."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.artifacts.files import RESULT, STUDY
from dsa.artifacts.results import SCHEMA, told_apart
from dsa.artifacts.store import read_json

logger = logging.getLogger(__name__)


def load_study(path: str | Path) -> pd.DataFrame:
    """One row a run, nested values under dotted names (selection.mean.mass); failed runs are rows too.

    `label` and `kind` say what a study compares a run as: its condition's or control's name, and `condition` or the
    control's kind (dense, oracle, random, window); `baseline` whether the others are compared with it. In a folder of
    single runs each is a condition, labelled by its options, except those under a control. Select by `kind` before you
    group by indexer or pattern: every control has indexer "none". Results of another version are left out, and that is
    said: their numbers do not mean the same.

    Raises:
        FileNotFoundError: no run folder below holds a result.
        ValueError: all results are of another version.
    """
    files = sorted(Path(path).glob(f"*/{RESULT}"))
    if not files:
        raise FileNotFoundError(f"{path}: no <run>/result.json below it.")
    plan = read_json(Path(path) / STUDY) or {}
    known = roles(plan)
    rows = []
    left_out: Counter[Any] = Counter()
    for file in files:
        row = json.loads(file.read_text())
        if row.get("schema") != SCHEMA:
            left_out[row.get("schema")] += 1
            continue
        role = known.get(file.parent.name) or role_of(row)
        rows.append(row | role | {"baseline": role["label"] == plan.get("baseline"), "folder": str(file.parent)})
    told = "; ".join(f"{count} of {len(files)} results have {told_apart(one)}" for one, count in left_out.items())
    if not rows:
        raise ValueError(f"{path}: {told}.")
    if left_out:
        logger.warning("%s: %s. They are left out.", path, told)
    frame = pd.json_normalize(rows)
    first = ["label", "kind", "baseline"]
    return frame[[*first, *(name for name in frame if name not in first)]]


def roles(plan: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Label and kind of each planned run by its folder; of one run under several labels, the first condition's."""
    out: dict[str, dict[str, str]] = {}
    for run in sorted(plan.get("runs", []), key=lambda run: run["role"] == "control"):
        if run["run_id"] is not None:
            out.setdefault(run["run_id"], {"label": run["label"], "kind": run["kind"]})
    return out


def role_of(result: dict[str, Any]) -> dict[str, str]:
    """Label and kind of a run that no study planned; one without an indexer is the control that its selector is."""
    options = [option for option in result["condition"].values() if option != "none"]
    alone = result["condition"].get("indexer") == "none"
    return {
        "label": "-".join(options),
        "kind": result["condition"]["selector"].rstrip("~") if alone else "condition",
    }
