"""Studies to report on: from their run folders, or from the compact results that an earlier report left."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

import pandas as pd

from dsa.analysis.inputs.compact import JOINT, RUNS, compact_files
from dsa.analysis.inputs.prepared import Prepared, prepare
from dsa.analysis.judgement.analysis import Analysis, analyse
from dsa.analysis.output.replaced import replaced
from dsa.artifacts.files import STUDY
from paper.times import Times

EARLY = "(Version 0.1: without decoys, bases trained for a fixed number of steps.)"


@dataclass(frozen=True)
class Study:
    """One study's analysis, and the times that were taken alone."""

    analysis: Analysis
    times: Times
    commits: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.analysis.prepared.meta.name

    @property
    def early(self) -> bool:
        """Whether version 0.1 ran it on the recall task: see `EARLY`."""
        prepared = self.analysis.prepared
        return prepared.meta.common.get("data") == "mqar" and "base_training.steps" not in prepared.runs


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


def load_all(given: list[Path]) -> list[Study]:
    """The studies in folders, as far as each is finished; folders of one name are parts of one study.

    Raises:
        FileNotFoundError: a folder holds no study.
        ValueError: a primary metric is not a quality, or two parts of a study are not of one plan.
    """
    parts: dict[str, list[Prepared]] = defaultdict(list)
    for folder in folders(given):
        prepared = prepare(folder)
        parts[prepared.meta.name].append(prepared)
    return [study_of(reduce(together, same)) for same in parts.values()]


def study_of(prepared: Prepared) -> Study:
    """A study with its analysis."""
    runs = prepared.runs
    commits = sorted(runs["provenance.git"].dropna().unique()) if "provenance.git" in runs else []
    return Study(analyse(prepared), Times(prepared), tuple(commits))


def together(first: Prepared, then: Prepared) -> Prepared:
    """One study of two parts: a seed of a length that both hold is the later one's, the time of a length too.

    Raises:
        ValueError: they are not parts of one plan.
    """
    plans = [replace(part.meta, runs=[], seed=[]) for part in (first, then)]
    if plans[0] != plans[1]:
        raise ValueError(f"{first.meta.name}: its parts differ in question, conditions, controls or margin.")
    newer = {*cells(then.runs), *((gap.seq_len, gap.seed) for gap in then.gaps)}
    kept = [cell not in newer for cell in cells(first.runs)]
    runs = [run for run in first.meta.runs if (run["seq_len"], run["seed"]) not in newer]
    gaps = tuple(gap for gap in first.gaps if (gap.seq_len, gap.seed) not in newer)
    return Prepared(
        replace(then.meta, runs=[*runs, *then.meta.runs], seed=sorted({*first.meta.seed, *then.meta.seed})),
        pd.concat([first.runs[kept], then.runs], ignore_index=True),
        gaps + then.gaps,
        first.timing | then.timing,
        together(first.joint, then.joint) if first.joint and then.joint else first.joint or then.joint,
    )


def cells(runs: pd.DataFrame) -> list[tuple[int, int]]:
    """Length and seed of each run."""
    return list(zip(runs["seq_len"], runs["seed"], strict=True))


def save(study: Study, folder: Path) -> None:
    """Leave a study's compact results."""
    prepared = study.analysis.prepared
    folder.mkdir(parents=True, exist_ok=True)
    parts = {RUNS: prepared, JOINT: prepared.joint}
    told = {name: (part.runs, part.gaps) for name, part in parts.items() if part is not None}
    files = compact_files(prepared.meta, told, study.times.record)
    for name, content in files.items():
        replaced(folder / name, partial(write_content, content))


def write_content(content: str | pd.DataFrame, path: Path) -> None:
    """Text as it is, a frame as Parquet."""
    if isinstance(content, str):
        path.write_text(content)
    else:
        content.to_parquet(path, index=False, compression="zstd")
