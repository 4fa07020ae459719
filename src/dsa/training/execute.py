"""Carry out one run from its spec to its result."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from dsa.artifacts.results import RunResult
from dsa.build import build_data
from dsa.judging.models import Models
from dsa.judging.threads import crowding
from dsa.judging.world import first_process
from dsa.spec import Spec
from dsa.training.console import show_config, show_result
from dsa.training.dashboard import flat_config
from dsa.training.errors import category
from dsa.training.failures import failures_kept, refusals
from dsa.training.fits import check_room
from dsa.training.loggers import LocalFiles, RunLogger
from dsa.training.rehearsal import rehearse
from dsa.training.run import Run
from dsa.training.run_folder import alone, begin, logged
from dsa.training.work import work

logger = logging.getLogger(__name__)


def train(spec: Spec, show: bool = True, keep_refused: bool = False) -> RunResult:
    """Carry out what a spec describes, with everything that it stands on.

    A finished run is not repeated: its result is shown and returned. An interrupted one goes on.

    Args:
        show: the configuration too, before anything is made.
        keep_refused: a run whose settings are refused leaves a folder that says so, as one that fails later does.

    Raises:
        RunRefused: a setting was refused before anything was trained; one paragraph says which, what it got and what
            is allowed.
        RunFailed: it failed later; its folder says so too.
    """
    with failures_kept(spec, None), refusals(keep_refused):
        run = Run(spec, build_data(spec))
    with failures_kept(spec, run):
        done = run.finished()
    if done is None:
        with failures_kept(spec, run), refusals(keep_refused):
            check_room(spec)
        done, farewell = execute(run, show=show, keep_refused=keep_refused)
        with logged(run):
            say_result(done, farewell)
    else:
        say_result(done, [])
    return done


def say_result(result: RunResult, farewell: Sequence[str]) -> None:
    """Show a result, once for all processes."""
    if first_process():
        show_result(result, farewell)


def tell_crowding(spec: Spec) -> None:
    """Say what to do where the threads of training on the processor have too few cores."""
    if spec.trainer.on_gpu:
        return
    advice = crowding(torch.get_num_threads(), "train.py")
    if advice is not None:
        logger.warning(advice)


def execute(
    run: Run,
    models: Models | None = None,
    wait: bool = False,
    timed: bool = True,
    show: bool = False,
    keep_refused: bool = True,
) -> tuple[RunResult, Sequence[str]]:
    """The result of a run, worked out now unless it is there, and what to tell the user about its dashboard.

    Args:
        models: puts models together; one that is handed from run to run reads each base once.
        wait: for another process that works on this very run, instead of failing.
        timed: measure a forward pass and the memory of a step too, which takes as long as judging a small model.
        show: the configuration, before anything is made.
        keep_refused: as `train`.

    Raises:
        RunRefused, RunFailed: as `train`.
    """
    with failures_kept(run.spec, run):
        done = run.finished()
    if done is not None:
        return done, []
    with alone(run, wait), failures_kept(run.spec, run), logged(run):
        done = run.finished()  # another process may have finished it while this one waited
        if done is not None:
            return done, []
        assert run.data is not None
        if run.untrained() or run.unjudged():
            with refusals(keep_refused):
                rehearse(run.spec, run.data)
        if show and first_process():
            show_config(run.spec)
            tell_crowding(run.spec)
        resumed = begin(run)
        shown = first_process() and not run.dashboard.silent
        board: RunLogger = run.spec.logger.make() if shown else LocalFiles()
        stages = [name for name in ("dense", "warmup", "sparse") if getattr(run.spec.recipe, f"{name}_steps")]
        board.start(run.folder, run.dashboard.identity(stages, resumed), flat_config(run.spec, own_names(run)))
        try:
            result = work(run, run.data, board, models or Models(run.store, run.data.vocab_size), timed)
        except BaseException as error:
            if category(error) == "nan":
                board.alert("Loss is not a number", str(error))
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Lightning turns Ctrl-C into an exit
            if stopped:
                logger.warning("%s: interrupted; the same command goes on from what was saved.", run.name)
            board.summary({"status": "interrupted"} if stopped else {"status": "failed", "reason": str(error)})
            board.finish(failed=True)
            raise
        board.finish(failed=False)
        return result, board.farewell()


def own_names(run: Run) -> dict[str, Any]:
    """The run's id and those of what it is made of."""
    parts = {"base": run.graph.base, "indexers": run.graph.indexers, "joint": run.graph.joint}
    return {"run_id": run.name} | {kind: None if need is None else need.name for kind, need in parts.items()}
