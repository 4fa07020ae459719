"""A whole study on W&B: every run rebuilt from its files, so that killed, resumed and parallel runs arrive whole."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dsa.artifacts.atomic import write_json
from dsa.artifacts.digest import digest
from dsa.artifacts.files import CONFIG, METRICS, RESULT
from dsa.artifacts.results import RunResult
from dsa.artifacts.store import PLACES, RECORD
from dsa.spec import Spec, spec_from
from dsa.study.states import planned, sound
from dsa.study.workers.claim import read
from dsa.training.dashboard import SHARED, Dashboard, final_values, flat_config
from dsa.training.load import load_spec
from dsa.training.log import FIXED
from dsa.training.loggers import WandbLogger

SYNCED, REBUILT = "synced.json", "wandb-rebuilt"


@dataclass(frozen=True)
class Synced:
    """What became of a study's runs and artifacts: sent, had nothing new, could not be sent or read."""

    sent: list[Path]
    unchanged: list[Path]
    lost: list[Path]


@dataclass(frozen=True)
class Record:
    """Something that is one run of W&B's.

    Args:
        folder: where it lies, and what is rebuilt of it.
        sources: the files that it is rebuilt from, metrics by the name that tells them apart.
        board: who it is there.
        own: of its configuration, besides its settings; final: its last values.
    """

    folder: Path
    sources: dict[str, Path]
    board: Dashboard
    own: dict[str, Any]
    final: dict[str, Any]
    failed: bool = False

    def fingerprint(self, mode: str) -> str:
        """Hash of what would be sent."""
        found = hashlib.sha256(mode.encode() + digest(self.final, 32).encode())
        for path in self.sources.values():
            found.update(path.read_bytes() if path.exists() else b"")
        return found.hexdigest()


def sync(folder: Path, mode: str = "auto", admitted: Sequence[str] = ()) -> Synced:
    """Upload the runs of a study that changed since the last time, and the bases, cohorts and controls behind them.

    Each is one run of W&B's under the id that the live run has. Offline, its rebuilt files replace those of the last
    time (<run>/wandb-rebuilt).

    Args:
        admitted: packages of the user's own whose classes the runs' configurations may name.
    """
    out = Synced([], [], [run for run in results_of(planned(folder), folder) if sound(run) is None])
    for record in records_of(folder, admitted):
        print_of = record.fingerprint(mode)
        if read(record.folder / SYNCED).get("content") == print_of:
            out.unchanged.append(record.folder)
        elif rebuild(record, mode):
            write_json(record.folder / SYNCED, {"content": print_of})
            out.sent.append(record.folder)
        else:
            out.lost.append(record.folder)
    return out


def results_of(plan: dict[str, Any], folder: Path) -> dict[Path, str]:
    """Folders of a study's runs that have a result, and their labels."""
    runs = {folder / run["run_id"]: run["label"] for run in plan["runs"] if run["run_id"] is not None}
    return {run: label for run, label in runs.items() if (run / RESULT).exists() and (run / CONFIG).exists()}


def records_of(folder: Path, admitted: Sequence[str]) -> Iterator[Record]:
    """A study's runs that have a result to be read, then what they share."""
    plan = planned(folder)
    group = f"{plan['name']} {plan['created']}"
    for run, label in results_of(plan, folder).items():
        if (result := sound(run)) is not None:
            yield of_a_run(run, result, label, group, admitted)
    made = [run["artifacts"] for run in plan["runs"] if run["run_id"] is not None]
    for kind, place in (("base", "base"), ("control", "joint")):
        for name in dict.fromkeys(one[kind] for one in made if one[kind] is not None):
            if (folder.parent / PLACES[place] / name / RECORD).exists():
                yield of_an_artifact(folder.parent / PLACES[place] / name, kind, admitted)
    bases: dict[str, list[Path]] = {}
    for one in made:
        member = folder.parent / PLACES["indexers"] / str(one["indexers"])
        if one["base"] is not None and (member / RECORD).exists() and member not in bases.setdefault(one["base"], []):
            bases[one["base"]].append(member)
    for base, members in bases.items():
        if members:
            yield of_a_cohort(folder, base, sorted(members), group, admitted)


def of_a_run(folder: Path, result: RunResult, label: str, group: str, admitted: Sequence[str]) -> Record:
    """A run, as its live self was shown."""
    spec = load_spec(folder, admitted)
    tags = tuple(f"{part}:{option}" for part, option in result.condition.items())
    named = {kind: result.artifacts.get(kind) for kind in ("base", "indexers", "joint")}
    final = final_values(result) | ({} if result.error is None else {"reason": result.error["reason"]})
    board = Dashboard(spec, folder.name, group, label, tags)
    own = {"run_id": folder.name} | named
    return Record(folder, {"": folder / METRICS}, board, own, final, result.status != "finished")


def of_an_artifact(folder: Path, job_type: str, admitted: Sequence[str]) -> Record:
    """A base or control."""
    board = Dashboard(spec_of_artifact(folder, admitted), folder.name, SHARED, job_type)
    return Record(folder, {"": folder / METRICS}, board, {}, {"status": "finished"})


def of_a_cohort(study: Path, base: str, members: list[Path], group: str, admitted: Sequence[str]) -> Record:
    """All of a study's indexers of one base, with a curve for each, whenever each was trained."""
    name = f"cohort-{base.removeprefix('dense-')}"
    specs = [spec_of_artifact(member, admitted) for member in members]
    sources = {spec.indexer_label: member / METRICS for spec, member in zip(specs, members, strict=True)}
    place = study / ".cohorts" / name
    place.mkdir(parents=True, exist_ok=True)
    return Record(place, sources, Dashboard(specs[0], name, group, "cohort"), {}, {"status": "finished"})


def spec_of_artifact(folder: Path, admitted: Sequence[str]) -> Spec:
    """The spec that an artifact was made from, where it lies now; the file itself admits no package."""
    here = {"allow_targets": list(admitted), "output_dir": str(folder.parents[1])}
    return spec_from(read(folder / RECORD)["config"] | here)


def rebuild(record: Record, mode: str) -> bool:
    """One W&B run from its files; whether that went well."""
    spec = record.board.spec
    node = spec.logger.node
    board = WandbLogger(node.get("project", "dsa"), node.get("entity"), mode)
    target = record.folder / REBUILT
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    rows = rows_of(record.sources)
    identity = record.board.identity(list(dict.fromkeys(row["stage"] for row in rows)), False)
    board.start(target, identity, flat_config(spec, record.own))
    for row in rows:
        values = {str(k): float(v) for k, v in row.items() if k not in FIXED and pd.notna(v)}
        board.log(str(row["stage"]), int(row["stage_step"]), int(row["step"]), values)
    board.summary(record.final)
    board.finish(failed=record.failed)
    return not board.broken


def rows_of(sources: dict[str, Path]) -> list[dict[str, Any]]:
    """The rows of metrics files side by side: where there are several, a metric of training has its source's name."""
    whole: pd.DataFrame | None = None
    for name, path in sources.items():
        rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(FIXED))
        if name:
            shown = [str(column) for column in rows if str(column).startswith("train/")]
            rows = rows[[*FIXED, *shown]].rename(columns={column: f"{column}/{name}" for column in shown})
        whole = rows if whole is None else whole.merge(rows, on=list(FIXED), how="outer")
    return [] if whole is None else whole.to_dict("records")  # type: ignore[return-value]
