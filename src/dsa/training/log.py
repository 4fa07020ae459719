"""metrics.csv: the run's own record, one row a step, mirrored to a dashboard."""

import csv
from pathlib import Path
from typing import Any

from dsa.atomic import replacing
from dsa.training.mirrors import Mirror
from dsa.training.stages import Stage

FIXED = ("step", "stage", "stage_step", "kind")


class RunLog:
    """Appends rows to metrics.csv and hands them on to a mirror.

    A row is one step of one kind (train: an optimiser step; val: an evaluation). A row that is already there is
    not written again, so what a resumed stage repeats leaves no trace.

    Args:
        path: of metrics.csv; None writes nothing (the other processes of a distributed run).
    """

    def __init__(self, path: Path | None, mirror: Mirror) -> None:
        self.path, self.mirror = path, mirror
        self.rows = read_rows(path) if path is not None and path.exists() else []
        self.columns = list(self.rows[0]) if self.rows else list(FIXED)
        self.present = {(row["step"], row["kind"]) for row in self.rows}

    def add(self, stage: Stage, stage_step: int, kind: str, values: dict[str, float]) -> None:
        """Write one row, unless it is there."""
        step = stage.offset + stage_step
        key = (str(step), kind)
        if self.path is None or key in self.present:
            return
        self.present.add(key)
        row: dict[str, Any] = {"step": step, "stage": stage.name, "stage_step": stage_step, "kind": kind} | values
        self.rows.append({name: str(value) for name, value in row.items()})
        new = [name for name in row if name not in self.columns]
        if new or not self.path.exists():
            self.columns += new
            self.write()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        self.mirror.log(stage.name, stage_step, step, values)

    def cut(self, step: int) -> None:
        """Forget what came after a checkpoint's step: the resumed stage repeats it."""
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

    def column(self, stage: str, name: str) -> list[float]:
        """The values of one metric in a stage's training rows, by step."""
        rows = [row for row in self.rows if row["stage"] == stage and row["kind"] == "train"]
        return [float(row[name]) for row in rows if row.get(name)]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a metrics.csv; a last line that a killed process left unfinished is dropped."""
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    return [row for row in csv.DictReader(complete.splitlines()) if None not in row.values()]
