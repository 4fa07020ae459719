"""Artifacts that could not be made: told in the folder of their job, and passed on to every run that needs them."""

from pathlib import Path
from typing import NamedTuple

from dsa.artifacts.atomic import write_json
from dsa.artifacts.results import RunResult
from dsa.graph import Graph, Need
from dsa.spec import Spec
from dsa.study.workers.claim import read
from dsa.study.workers.places import JOBS
from dsa.training.blank import blank


class Failure(NamedTuple):
    """Why something could not be done.

    Args:
        category: what a user can do about it (training.errors), or killed, timeout.
    """

    category: str
    reason: str


def died(times: int) -> Failure:
    """Why a job is left alone whose processes died without a word."""
    return Failure(
        "killed", f"its process died {times} times without getting any further: killed from outside, or it crashed."
    )


def place(outputs: Path, need: Need) -> Path:
    """Where the failure of an artifact is told, whichever job was to make it; those of one base's indexers together."""
    kind = {"base": "base", "indexers": "cohort"}.get(need.kind, "control")
    job = need.needs[0].hash if kind == "cohort" else need.hash
    return outputs / JOBS / f"{kind}-{job}" / f"failed-{need.hash}.json"


def keep(outputs: Path, need: Need, failure: Failure) -> None:
    """Tell that an artifact could not be made."""
    path = place(outputs, need)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"name": need.name, "code": need.code} | failure._asdict())


def forget(outputs: Path, graph: Graph) -> None:
    """Let a run's artifacts be tried again."""
    for need in needed(graph, control=True):
        place(outputs, need).unlink(missing_ok=True)


def needed(graph: Graph, control: bool) -> list[Need]:
    """The artifacts that a run shares with others and cannot do without.

    Args:
        control: the dense control is one of them: it is made where it is missing.
    """
    wanted = [graph.base, graph.indexers, graph.control if control or graph.control == graph.joint else None]
    return [need for need in wanted if need is not None]


def failure_of(spec: Spec, graph: Graph) -> Failure | None:
    """Why a run cannot be carried out: an artifact that it needs could not be made by this code; None if it can."""
    for need in needed(graph, spec.dense_control):
        told = read(place(spec.outputs, need))
        if told and told["code"] == need.code:
            what = {"base": "the base", "indexers": "the indexers"}.get(need.kind, "the dense control")
            return Failure(told["category"], f"{what} {told['name']}, which it needs, failed: {told['reason']}")
    return None


def told(outputs: Path) -> bool:
    """Whether the failure of any artifact is told."""
    return any((outputs / JOBS).glob("*/failed-*.json"))


def fail(spec: Spec, graph: Graph, folder: Path, failure: Failure) -> RunResult:
    """Write a failed result for a run that could not write it itself.

    Raises:
        OSError: the folder cannot be written.
    """
    result = blank(spec, graph, folder)
    result.error = failure._asdict()
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder)
    return result
