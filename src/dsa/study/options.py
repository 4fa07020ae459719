"""How a study is run: what sweep.yaml offers beside the settings of the runs themselves."""

import math
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig

from dsa.checks import flag, one_of


@dataclass(frozen=True)
class Options:
    """Switches of a sweep; sweep.yaml says what each is for."""

    dry_run: bool = False
    on_error: str = "continue"
    retry_failed: bool = False
    timeout_minutes: float | None = None
    exploratory: bool | None = None
    judge: str | None = None
    finalists: int | None = None
    wait: bool = True
    timing: bool = True

    def __post_init__(self) -> None:
        one_of(self.on_error, ("continue", "stop"), "on_error")
        for name in ("dry_run", "retry_failed", "wait", "timing"):
            flag(getattr(self, name), name)
        if self.timeout_minutes is not None:
            if isinstance(self.timeout_minutes, bool) or not isinstance(self.timeout_minutes, int | float):
                raise ValueError(f"timeout_minutes = {self.timeout_minutes}: give minutes, or null for no limit.")
            if not 0 < self.timeout_minutes < math.inf:
                raise ValueError(f"timeout_minutes = {self.timeout_minutes}: give more than 0, or null for no limit.")
        if self.exploratory is not None:
            flag(self.exploratory, "exploratory")

    def changed(self, plan: dict[str, Any]) -> dict[str, Any]:
        """A study's yaml with what the command line says in place of it."""
        names = ("exploratory", "judge", "finalists")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        dropped = {"finalists"} if "judge" in own else set()  # they belong to the judge that is no more
        return {key: value for key, value in plan.items() if key not in dropped} | own


def options_of(cfg: DictConfig) -> Options:
    """The switches in a composed sweep.yaml."""
    return Options(**{name: cfg[name] for name in names()})


def names() -> list[str]:
    return [f.name for f in fields(Options)]


def private_keys() -> set[str]:
    """Keys of sweep.yaml that are no setting of a run."""
    return {*names(), "plan", "planned"}
