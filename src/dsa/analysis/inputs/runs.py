"""Single runs by their folders, whatever made them: what each was asked for, and what became of it."""

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsa.artifacts.files import CONFIG, RESULT
from dsa.artifacts.results import RunResult, of_another_schema, read_result
from dsa.config import read_config


@dataclass(frozen=True)
class OneRun:
    """A run to be set beside others.

    Args:
        settings: its configuration as plain data; what its result says of it where there is none.
        result: None if it left none.
        reason: why it has no numbers.
        open: it may still come to an end.
    """

    settings: dict[str, Any]
    result: RunResult | None
    reason: str | None = None
    open: bool = False

    @property
    def finished(self) -> bool:
        return self.result is not None and self.result.status == "finished"


def runs_at(given: list[str]) -> tuple[list[OneRun], list[str]]:
    """The runs that paths or patterns lead to, each once, in the order given; and what led to none.

    Args:
        given: folders of runs, their result.json, folders that hold folders of runs, or patterns for any of these.
    """
    folders: dict[Path, None] = {}
    nothing = []
    for one in given:
        paths = [Path(one)] if Path(one).exists() else [Path(path) for path in sorted(glob.glob(one))]
        found = [folder for path in paths for folder in folders_of(path)]
        folders |= dict.fromkeys(found)
        if not found:
            nothing.append(one)
    return [run_in(folder) for folder in folders], nothing


def folders_of(path: Path) -> list[Path]:
    """The folders of runs that a path stands for."""
    if path.name == RESULT:
        return [path.parent]
    if (path / RESULT).exists() or (path / CONFIG).exists():
        return [path]
    return sorted({file.parent for name in (RESULT, CONFIG) for file in path.glob(f"*/{name}")})


def run_in(folder: Path) -> OneRun:
    """The run in a folder."""
    reason = None
    try:
        result = read_result(folder)
    except (ValueError, TypeError) as error:
        result, reason = None, f"{RESULT} cannot be used: {error}"
    older = of_another_schema(folder) if reason is None else None
    if result is None:
        reason = reason or older or "no result yet"
    elif result.status != "finished":
        reason = (result.error or {}).get("reason", "no reason was written")
    settings = {} if result is None else told_by(result)
    if (folder / CONFIG).exists():
        settings = read_config(folder / CONFIG, resolve=False)
    return OneRun(settings, result, reason, open=result is None and older is None)


def told_by(result: RunResult) -> dict[str, Any]:
    """What a result says of its run's configuration."""
    choices = result.condition | {"model": result.model, "data": result.data, "recipe": result.recipe}
    return {"choices": choices, "overridden": [], "seq_len": result.seq_len, "seed": result.seed}
