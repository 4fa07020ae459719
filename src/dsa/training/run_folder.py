"""The folder of a run while it is under way: its lock, its configuration, its log."""

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dsa.artifacts.atomic import replacing
from dsa.artifacts.files import CONFIG, METRICS, RESULT
from dsa.artifacts.store import Busy
from dsa.judging.world import first_process, wait_for_all
from dsa.spec import Spec
from dsa.training.console import said
from dsa.training.errors import RunFailed, RunRefused
from dsa.training.run import Run
from dsa.training.run_log import RunLogFile

LOG = "run.log"


def begin(run: Run) -> bool:
    """Make the run folder ready: forget what may not be continued, write down the configuration.

    Returns: whether there is something to go on from.
    """
    resumed = False
    if first_process():
        marker = run.folder / "code.txt"
        other = marker.exists() and marker.read_text() != run.graph.code
        if run.spec.rerun or not run.spec.resume or other:
            for name in ("maps", "wandb", "tensorboard"):
                shutil.rmtree(run.folder / name, ignore_errors=True)
            (run.folder / METRICS).unlink(missing_ok=True)
        resumed = (run.folder / METRICS).exists()
        (run.folder / RESULT).unlink(missing_ok=True)
        marker.write_text(run.graph.code)
        write_config(run.spec, run.folder)
    wait_for_all()
    return resumed


def write_config(spec: Spec, folder: Path) -> None:
    """Write down what a run was asked for."""
    with replacing(folder / CONFIG) as temporary:
        OmegaConf.save(OmegaConf.create(spec.content), temporary)


@contextmanager
def alone(run: Run, wait: bool) -> Iterator[None]:
    """Hold the run's lock, which a killed process gives back by itself; a run that is refused leaves no folder.

    Raises:
        RunFailed: the run is under way elsewhere, or its folder cannot be written; nothing there is touched.
    """
    if not first_process():
        yield
        return
    began = not run.folder.exists()
    with ExitStack() as held:
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(run.store.alone(f"{run.spec.study}-{run.graph.hash}", wait))
        except Busy:
            raise RunFailed(
                f"{run.folder}: another process is working on this run. Wait for it, or give another name=NAME."
            ) from None
        except OSError as error:
            raise RunFailed(
                f"output_dir = {run.spec.output_dir}: cannot write {run.folder} ({error}).", "data"
            ) from error
        try:
            yield
        except RunRefused:
            if began:
                shutil.rmtree(run.folder)
            raise


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Copy what is shown, the package's log and Python's warnings to run.log in the run folder."""
    if not first_process():
        yield
        return
    handler = RunLogFile(run.folder / LOG)
    sources = [logging.getLogger(name) for name in ("dsa", said.name, "pytorch_lightning")]
    for source in sources:
        source.addHandler(handler)
    shown = warnings.showwarning

    def show_and_keep(message: Any, category: Any, filename: str, lineno: int, *more: Any, **named: Any) -> None:
        shown(message, category, filename, lineno, *more, **named)
        said.warning(warnings.formatwarning(message, category, filename, lineno).rstrip())

    warnings.showwarning = show_and_keep
    try:
        yield
    finally:
        warnings.showwarning = shown
        for source in sources:
            source.removeHandler(handler)
        handler.close()
