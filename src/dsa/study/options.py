"""How a study is run: what sweep.yaml offers beside the settings of the runs themselves."""

from dataclasses import dataclass, fields

from omegaconf import DictConfig


@dataclass(frozen=True)
class Options:
    """Switches of a sweep; sweep.yaml says what each is for."""

    dry_run: bool = False
    on_error: str = "continue"
    retry_failed: bool = False
    timeout_minutes: float | None = None
    exploratory: bool | None = None
    wait: bool = True
    timing: bool = True

    def __post_init__(self) -> None:
        if self.on_error not in ("continue", "stop"):
            raise ValueError(f"on_error = {self.on_error}: give continue or stop.")
        for name in ("dry_run", "retry_failed", "wait", "timing"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)}: give true or false.")
        if self.timeout_minutes is not None:
            if isinstance(self.timeout_minutes, bool) or not isinstance(self.timeout_minutes, int | float):
                raise ValueError(f"timeout_minutes = {self.timeout_minutes}: give minutes, or null for no limit.")
            if self.timeout_minutes <= 0:
                raise ValueError(f"timeout_minutes = {self.timeout_minutes}: give more than 0, or null for no limit.")


def options_of(cfg: DictConfig) -> Options:
    """The switches in a composed sweep.yaml."""
    return Options(**{name: cfg[name] for name in names()})


def names() -> list[str]:
    return [f.name for f in fields(Options)]


def private_keys() -> set[str]:
    """Keys of sweep.yaml that are no setting of a run."""
    return {*names(), "plan", "planned"}
