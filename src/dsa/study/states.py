"""What is known about runs and artifacts, read from their folders: there is no other state. Imports no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsa.artifacts.closure import fingerprint
from dsa.artifacts.digest import digest
from dsa.artifacts.files import RESULT, STUDY
from dsa.artifacts.names import check_folders
from dsa.artifacts.results import RunResult, of_another_schema, read_result
from dsa.artifacts.store import PLACES, Store
from dsa.config import config_dir
from dsa.study.workers.claim import read

if TYPE_CHECKING:
    from dsa.graph import Graph, Need
    from dsa.study.planned import PlannedRun

OF_A_RUN = {"label", "role", "kind", "context", "seq_len", "seed", "judge", "phase", "run_id", "config_hash", "code",
            "artifacts", "study"}  # fmt: skip

State = Literal["done", "failed", "stale", "missing"]
OPEN: tuple[State, ...] = ("missing", "stale")
"""Of runs that have no result yet; one that failed has."""


class Shelf:
    """Artifacts below an output folder, each folder listed once instead of searched for every need."""

    def __init__(self, root: Path, stale: str) -> None:
        self.store = Store(root, stale)
        self.found: dict[str, bool] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look again for what was not there."""
        self.names: dict[tuple[str, str], str] = {}
        for kind, place in PLACES.items():
            folder = self.store.root / place
            for path in folder.iterdir() if folder.is_dir() else ():
                self.names[kind, path.stem.rpartition("-")[2]] = path.name
        self.found = {key: there for key, there in self.found.items() if there}

    def has(self, need: "Need") -> bool:
        """Whether an artifact is there, made by this code."""
        if need.hash not in self.found:
            name = self.names.get((need.kind, need.hash))
            place = self.store.root / PLACES[need.kind]
            if name is None:
                self.found[need.hash] = False
            elif need.kind == "judgement":
                self.found[need.hash] = self.store.judgement(need) is not None
            else:
                self.found[need.hash] = self.store.read(place / name, need.code) is not None
        return self.found[need.hash]


class Results:
    """Results of planned runs, each file read again only when it changed."""

    def __init__(self, stale: str) -> None:
        self.stale = stale
        self.known: dict[Path, tuple[int, RunResult | None]] = {}

    def of(self, folder: Path) -> RunResult | None:
        """The result in a folder; None if there is none or it is damaged."""
        when = written(folder / RESULT)
        if when is None:
            return None
        if folder not in self.known or self.known[folder][0] != when:
            self.known[folder] = when, sound(folder)
        return self.known[folder][1]

    def state(self, run: "PlannedRun") -> State:
        """How far a run is; stale: its result was made by other code of this package."""
        result = self.of(run.folder)
        if result is None:
            return "missing"
        if result.status != "finished":
            return "failed"
        same = self.stale == "keep" or result.provenance.get("code") == run.graph.code
        return "done" if same else "stale"


def written(path: Path) -> int | None:
    """When a file or folder was written [ns]; None if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def sound(folder: Path) -> RunResult | None:
    """The result in a folder; None if there is none or it is damaged."""
    try:
        return read_result(folder)
    except (ValueError, TypeError, OSError):
        return None


def roots_of(graph: "Graph") -> list[list[str]]:
    """The modules and classes whose source a run's numbers come from: see `Graph.code`."""
    return [list(part.roots) for part in graph.parts]


def code_now(roots: list[list[str]]) -> str:
    """The fingerprint of that source as it is now."""
    return digest([fingerprint(tuple(part)) for part in roots], 12)


def planned(folder: Path) -> dict[str, Any]:
    """The plan in a study's folder.

    Raises:
        ValueError: there is none, other code wrote it, without something that is needed now, or it names folders
            outside the output folder.
    """
    plan = read(folder / STUDY)
    if not plan:
        raise ValueError(f"{folder}: no {STUDY} there. Give the folder of a study, outputs/<study>.")
    lacking = sorted(set().union(*(OF_A_RUN - run.keys() for run in plan["runs"])))
    if lacking:
        shipped = (config_dir() / "study" / f"{plan['name']}.yaml").exists()
        again = f"python sweep.py {'study' if shipped else 'name'}={plan['name']}"
        older = [told for path in sorted(folder.glob(f"*/{RESULT}")) if (told := of_another_schema(path.parent))]
        if older:
            rest = f"results of another version are made anew ({older[0]})"
        else:
            again, rest = f"{again} stale=keep", "stale=keep accepts the results that are there"
        raise ValueError(
            f"{folder / STUDY}: older code planned it, its runs lack {', '.join(lacking)}. Plan it again: {again}, "
            f"with the lists that you gave before; {rest}."
        )
    check_folders(plan, folder / STUDY)
    return plan
