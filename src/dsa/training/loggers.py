"""Dashboards beside the local files. A mirror that breaks is said once and never stops a run."""

import functools
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsa.checks import at_least

logger = logging.getLogger(__name__)


class RunLogger(ABC):
    """Gets a copy of everything that goes to the run folder. None of its errors reaches the run.

    Args:
        judgement_runs: most runs of a study that are judged with the backbone untouched and still are runs of their
            own here; the study counts them.
    """

    broken = False

    def __init__(self, judgement_runs: int = 500) -> None:
        self.judgement_runs = at_least(judgement_runs, 0, "logger.judgement_runs")

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in ("start", "log", "image", "summary", "alert", "finish", "farewell"):
            if name in cls.__dict__:
                setattr(cls, name, harmless(cls.__dict__[name], silent=() if name == "farewell" else None))

    @abstractmethod
    def start(self, folder: Path, identity: dict[str, Any], config: dict[str, Any]) -> None:
        """Begin: identity holds id, name, group, job_type, tags, stages, resumed; config is flat."""

    @abstractmethod
    def log(self, stage: str, stage_step: int, step: int, values: dict[str, float]) -> None:
        """One row of metrics.csv."""

    def image(self, name: str, step: int, path: Path) -> None:  # noqa: B027
        """A picture that lies in the run folder; not every dashboard shows pictures."""

    @abstractmethod
    def summary(self, values: dict[str, Any]) -> None:
        """The run's final values."""

    def alert(self, title: str, text: str) -> None:  # noqa: B027
        """Something a person should know now; not every dashboard can send it."""

    @abstractmethod
    def finish(self, failed: bool) -> None:
        """End, also after a crash."""

    def farewell(self) -> Sequence[str]:
        """What to tell the user about looking at this run."""
        return ()


def harmless(method: Callable[..., Any], silent: Any = None) -> Callable[..., Any]:
    """The method, with its errors turned into one warning, after which the mirror stays silent.

    Args:
        silent: what it gives then.
    """

    @functools.wraps(method)
    def guarded(self: RunLogger, *arguments: Any, **named: Any) -> Any:
        if self.broken:
            return silent
        try:
            return method(self, *arguments, **named)
        except Exception as error:
            self.broken = True
            logger.warning("%s stopped: %s. The run goes on; its files are complete.", type(self).__name__, error)
            return silent

    return guarded


class LocalFiles(RunLogger):
    """Local files alone."""

    def start(self, folder: Path, identity: dict[str, Any], config: dict[str, Any]) -> None: ...

    def log(self, stage: str, stage_step: int, step: int, values: dict[str, float]) -> None: ...

    def summary(self, values: dict[str, Any]) -> None: ...

    def finish(self, failed: bool) -> None: ...


class TensorBoardLogger(RunLogger):
    """TensorBoard event files in the run folder."""

    def start(self, folder: Path, identity: dict[str, Any], config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder / "tensorboard"
        self.writer = SummaryWriter(str(self.folder))
        self.writer.add_text("config", "\n".join(f"    {name}: {value}" for name, value in config.items()))

    def log(self, stage: str, stage_step: int, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(stage_metric(stage, name), value, step)

    def image(self, name: str, step: int, path: Path) -> None:
        import matplotlib.image

        self.writer.add_image(name, matplotlib.image.imread(path)[..., :3], step, dataformats="HWC")

    def summary(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"final/{name}", value)

    def finish(self, failed: bool) -> None:
        self.writer.close()

    def farewell(self) -> Sequence[str]:
        return [f"look: tensorboard --logdir {self.folder.parent}"]


class WandbLogger(RunLogger):
    """Weights & Biases: online with an API key, else offline; never a reason to wait or to stop.

    Args:
        project, entity: where runs go; entity None = the key's own.
        mode: auto, online, offline or disabled.
    """

    def __init__(self, project: str, entity: str | None, mode: str, judgement_runs: int = 500) -> None:
        super().__init__(judgement_runs)
        if mode not in ("auto", "online", "offline", "disabled"):
            raise ValueError(f"logger.mode = {mode}: give auto, online, offline or disabled.")
        self.project, self.entity, self.mode = project, entity, mode
        self.run: Any = None

    def start(self, folder: Path, identity: dict[str, Any], config: dict[str, Any]) -> None:
        import wandb

        mode = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
        begin: Any = functools.partial(
            wandb.init,
            project=self.project,
            entity=self.entity,
            dir=str(folder),
            id=wandb_id(identity["id"]),
            name=identity["name"],
            group=identity["group"],
            job_type=identity["job_type"],
            tags=[tag[:64] for tag in identity["tags"]],
            config=config,
            resume="allow" if identity["resumed"] else None,  # None: a run made anew replaces its old self
            reinit="create_new",  # a base or control is a run of its own while this one goes on
        )
        try:
            self.run = begin(mode=mode, settings=quiet())
        except Exception as error:
            if mode != "online":
                raise
            logger.warning("W&B could not be reached (%s): this run is kept offline.", error)
            self.run = begin(mode="offline", settings=quiet())
        for stage in identity["stages"]:
            self.run.define_metric(f"{stage}/step", hidden=True)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self.run.define_metric("step", hidden=True)
        for family in ("val", "select", "speed"):
            self.run.define_metric(f"{family}/*", step_metric="step")

    def log(self, stage: str, stage_step: int, step: int, values: dict[str, float]) -> None:
        renamed = {stage_metric(stage, name): value for name, value in values.items()}
        self.run.log({"step": step, f"{stage}/step": stage_step} | renamed)

    def image(self, name: str, step: int, path: Path) -> None:
        import wandb

        self.run.log({"step": step, name: wandb.Image(str(path))})

    def summary(self, values: dict[str, Any]) -> None:
        self.run.summary.update(values)

    def alert(self, title: str, text: str) -> None:
        self.run.alert(title=title, text=text)

    def finish(self, failed: bool) -> None:
        if self.run is not None:
            self.offline = self.run.settings.mode == "offline"
            self.folder = Path(self.run.dir).parents[1]
            self.url = None if self.offline else self.run.url
            self.run.finish(exit_code=int(failed))

    def farewell(self) -> Sequence[str]:
        if self.run is None or self.mode == "disabled":
            return []
        if not self.offline:
            return [f"look: {self.url}"]
        parts = sorted(self.folder.glob("offline-run-*"))  # one more for each time the run was resumed
        all_parts = parts[0] if len(parts) == 1 else self.folder / "offline-run-*"
        return [f"look:   wandb leet {parts[-1]}", f"upload: wandb sync {all_parts}"]


def quiet() -> Any:
    """Settings: no console walls, no capture of standard output, and at most 15 s to begin."""
    import wandb

    return wandb.Settings(silent=True, console="off", init_timeout=15, x_disable_stats=True)


def has_key() -> bool:
    """Whether this user has an API key: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.exists() and "api.wandb.ai" in netrc.read_text(errors="replace")


def wandb_id(name: str) -> str:
    """The name with characters that W&B refuses in ids replaced."""
    return "".join("-" if c in "/\\#?%:~ " else c for c in name)[-128:]


def stage_metric(stage: str, name: str) -> str:
    """Training metrics stand under their stage's name, all others under their own."""
    return f"{stage}/{name.removeprefix('train/')}" if name.startswith("train/") else name
