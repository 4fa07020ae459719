"""metrics.csv: a record of training, one row a step, told on to whoever listens."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dsa.artifacts.atomic import replacing
from dsa.training.stages import Stage

FIXED = ("step", "stage", "stage_step", "kind")


@runtime_checkable
class Listener(Protocol):
    """Hears of each new row: a dashboard."""

    def log(self, stage: str, stage_step: int, step: int, values: dict[str, float]) -> None: ...

    def image(self, name: str, step: int, path: Path) -> None: ...


class RunLog:
    """Appends rows to metrics.csv and hands them on.

    A row is one step of one kind (train: an optimiser step; val: an evaluation). A row that is already there is
    not written again, so what a resumed stage repeats leaves no trace.

    Args:
        path: of metrics.csv; None writes nothing (the other processes of a distributed run).
        listener: a dashboard.
        then: the log of a run for which this stage is trained; it gets the same rows.
    """

    def __init__(self, path: Path | None, listener: Listener | None = None, then: "RunLog | None" = None) -> None:
        self.path, self.listener, self.then = path, listener, then
        self.rows = read_rows(path) if path is not None and path.exists() else []
        self.columns = list(self.rows[0]) if self.rows else list(FIXED)
        self.present = {(row["step"], row["kind"]) for row in self.rows}

    def add(self, stage: Stage, stage_step: int, kind: str, values: dict[str, float]) -> None:
        """Write one row, unless it is there."""
        self.put(stage.name, stage_step, stage.offset + stage_step, kind, values)

    def put(self, stage: str, stage_step: int, step: int, kind: str, values: dict[str, float]) -> None:
        """Write one row, unless it is there."""
        if self.then is not None:
            self.then.put(stage, stage_step, step, kind, values)
        key = (str(step), kind)
        if self.path is None or key in self.present:
            return
        self.present.add(key)
        row: dict[str, Any] = {"step": step, "stage": stage, "stage_step": stage_step, "kind": kind} | values
        self.rows.append({name: str(value) for name, value in row.items()})
        new = [name for name in row if name not in self.columns]
        if new or not self.path.exists():
            self.columns += new
            self.write()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        if self.listener is not None:
            self.listener.log(stage, stage_step, step, values)

    def replay(self, rows: Iterable[dict[str, str]]) -> None:
        """Take over the rows of a stage that was trained before."""
        for row in rows:
            values = {name: float(value) for name, value in row.items() if name not in FIXED and value}
            self.put(row["stage"], int(row["stage_step"]), int(row["step"]), row["kind"], values)

    def picture(self, name: str, step: int, path: Path) -> None:
        """Hand on a picture that lies in the run folder."""
        if self.then is not None:
            self.then.picture(name, step, path)
        if self.listener is not None:
            self.listener.image(name, step, path)

    def cut(self, step: int) -> None:
        """Forget what came after a checkpoint's step: the resumed stage repeats it."""
        if self.then is not None:
            self.then.cut(step)
        self.rows = [row for row in self.rows if int(row["step"]) <= step]
        self.present = {(row["step"], row["kind"]) for row in self.rows}
        if self.path is not None and self.path.exists():
            self.write()

    def write(self) -> None:
        """The whole file anew, in one rename."""
        assert self.path is not None
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a metrics.csv; a last line that a killed process left unfinished is dropped."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(complete.splitlines()) if None not in row.values()]


def column(rows: list[dict[str, str]], stage: str, name: str) -> list[float]:
    """The values of one metric in a stage's training rows, by step."""
    return [float(row[name]) for row in rows if row["stage"] == stage and row["kind"] == "train" and row.get(name)]
