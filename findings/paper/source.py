"""Studies to report on: from their run folders, or from the compact results that an earlier report left."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from dsa.analysis.inputs.compact import compact_files
from dsa.analysis.inputs.meta import STUDY
from dsa.analysis.inputs.prepared import prepare
from dsa.analysis.judgement.analysis import Analysis, analyse
from dsa.analysis.output.replaced import replaced
from paper.times import Times


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
    prepared = prepare(folder)
    runs = prepared.runs
    commits = sorted(runs["provenance.git"].dropna().unique()) if "provenance.git" in runs else []
    return Study(analyse(prepared), Times(prepared.timing), tuple(commits))


def save(study: Study, folder: Path) -> None:
    """Leave a study's compact results."""
    prepared = study.analysis.prepared
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in compact_files(prepared.meta, prepared.runs, prepared.gaps, study.times.record).items():
        replaced(folder / name, partial(write_content, content))


def write_content(content: str | pd.DataFrame, path: Path) -> None:
    """Text as it is, a frame as Parquet."""
    if isinstance(content, str):
        path.write_text(content)
    else:
        content.to_parquet(path, index=False, compression="zstd")
