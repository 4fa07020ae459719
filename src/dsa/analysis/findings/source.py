"""Studies to report on: from their run folders, or from the compact results that an earlier report left."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.analysis.analyse import Analysis, analyse
from dsa.analysis.files import finite, replaced
from dsa.analysis.findings.times import Times
from dsa.analysis.meta import STUDY, read_meta
from dsa.analysis.prepare import Gap, Prepared, prepare
from dsa.analysis.timing import TIMING, read_timing

RUNS = "runs.parquet"
RUN_KEYS = ("label", "role", "context", "seq_len", "seed", "run_id", "study", "not_applicable")
DROPPED = (
    "folder", "reused_from", "warnings", "error", "config_hash", "corpus", "swap_selection.layers",
    "provenance.machine.system", "provenance.packages.",
)  # fmt: skip
LAYERS = "selection.layers"


@dataclass(frozen=True)
class Study:
    """One study's analysis, and the times that were taken alone."""

    analysis: Analysis
    times: Times
    commits: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.analysis.prepared.meta.name


def folders(given: list[Path]) -> list[Path]:
    """The studies' folders: those given, or those right inside of one that is none itself.

    Raises:
        FileNotFoundError: a folder holds no study.
    """
    out = []
    for folder in given:
        inside = [folder] if (folder / STUDY).exists() else sorted(path.parent for path in folder.glob(f"*/{STUDY}"))
        if not inside:
            raise FileNotFoundError(f"{folder}: neither it nor a folder in it holds a {STUDY}.")
        out += inside
    return out


def load(folder: Path) -> Study:
    """A study, as far as it is finished.

    Raises:
        FileNotFoundError: the folder holds no study.
        ValueError: its primary metric is not a quality.
    """
    prepared = committed(folder) if (folder / RUNS).exists() else prepare(folder)
    runs = prepared.runs
    commits = sorted(runs["provenance.git"].dropna().unique()) if "provenance.git" in runs else []
    return Study(analyse(prepared), Times(prepared.timing), tuple(commits))


def committed(folder: Path) -> Prepared:
    """A study from its compact results."""
    values = json.loads((folder / STUDY).read_text())
    runs = pd.read_parquet(folder / RUNS)
    if LAYERS in runs:
        runs[LAYERS] = runs[LAYERS].map(json.loads, na_action="ignore")
    return Prepared(read_meta(folder), runs, tuple(Gap(**gap) for gap in values["gaps"]), read_timing(folder))


def save(study: Study, folder: Path) -> None:
    """Leave a study's compact results: everything that its analysis needs, nothing of this machine's folders."""
    prepared = study.analysis.prepared
    runs = prepared.runs[[name for name in prepared.runs if not str(name).startswith(DROPPED)]].copy()
    if LAYERS in runs:
        runs[LAYERS] = runs[LAYERS].map(json.dumps, na_action="ignore")
    meta = asdict(prepared.meta)
    meta["runs"] = [{key: run[key] for key in RUN_KEYS if key in run} for run in prepared.meta.runs]
    plan = {**meta, "gaps": [asdict(gap) for gap in prepared.gaps]}
    folder.mkdir(parents=True, exist_ok=True)
    replaced(folder / STUDY, lambda path: path.write_text(one_item_a_line(plan)))
    replaced(folder / RUNS, lambda path: runs.to_parquet(path, index=False, compression="zstd"))
    if study.times.record:
        replaced(
            folder / TIMING, lambda path: path.write_text(json.dumps(without_system(study.times.record), indent=1))
        )


def one_item_a_line(plan: dict[str, Any]) -> str:
    """JSON whose long lists have one item a line."""
    parts = []
    for key, value in finite(plan).items():
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
