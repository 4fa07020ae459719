"""A run that fails leaves its reason in its folder, and one paragraph for the user."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsa.artifacts.digest import digest
from dsa.artifacts.results import RunResult, read_result
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.blank import blank
from dsa.training.errors import RunFailed, RunRefused, category, expected, reason
from dsa.training.run import Run
from dsa.training.run_folder import LOG, write_config

logger = logging.getLogger(__name__)


@contextmanager
def failures_kept(spec: Spec, run: Run | None) -> Iterator[None]:
    """Turn an error into a failed result in the run folder and one paragraph for the user.

    Raises:
        RunFailed: instead of the error; an interruption goes through, and leaves the run to be continued.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, RunFailed):
        raise
    except BaseException as error:
        said, kind = reason(error), category(error)
        log = keep_failure(spec, run, kind, said, traceback.format_exc())
        told = said if log is None or expected(error) else f"{said} (details: {log})"
        raise RunFailed(told, kind) from error


@contextmanager
def refusals(kept: bool) -> Iterator[None]:
    """What this package says of settings before anything is trained.

    Args:
        kept: what is refused is a run that failed, as any other error makes it: it is one of several.

    Raises:
        RunRefused: instead of a setting's error, unless it is kept.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if kept or not expected(error):
            raise
        raise RunRefused(str(error), category(error)) from error


def refused(spec: Spec) -> RunResult:
    """The result of a spec that describes no run: under its run's name if it can have one, else its own."""
    try:
        run = Run(spec, None)
        return blank(spec, run.graph, run.folder)
    except (ValueError, TypeError, KeyError):
        name = f"refused-{digest(spec.content)}"
        return RunResult(
            run_id=name,
            status="failed",
            study=spec.study,
            condition={},
            model=spec.model.option,
            data=spec.data.option,
            recipe=spec.options.get("recipe", "custom"),
            seq_len=spec.seq_len,
            seed=spec.seed,
            folder=str(spec.outputs / spec.study / name),
        )


def has_result(folder: Path) -> bool:
    """Whether a folder holds a finished result that can be used."""
    try:
        found = read_result(folder)
    except (ValueError, TypeError):
        return False
    return found is not None and found.status == "finished"


def keep_failure(spec: Spec, run: Run | None, kind: str, reason: str, trace: str) -> Path | None:
    """Write status failed and the reason into the run folder, if there can be one; returns the log's path."""
    if not first_process():
        return None
    try:
        result = refused(spec) if run is None else blank(spec, run.graph, run.folder)
        folder = Path(result.folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not has_result(folder):  # a failed attempt to repeat a run keeps its result
            result.error = {"category": kind, "reason": reason}
            result.write(folder)
            write_config(spec, folder)
        log = folder / LOG
        with log.open("a", encoding="utf-8") as file:
            file.write(trace)
        return log
    except OSError as second:
        logger.warning("the failure could not be written to a run folder: %s", second)
        return None
