"""One run from its spec to its result: what it needs is found or made, then judged, and its row is written."""

import logging
import shutil
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dsa.artifacts.atomic import replacing
from dsa.artifacts.digest import digest
from dsa.artifacts.results import FILE, RunResult, read_result
from dsa.artifacts.store import Busy, Store
from dsa.build import build_data
from dsa.data import DataModule
from dsa.graph import Need, graph_of, run_id
from dsa.judging.calibrate import restore
from dsa.judging.judge import judge
from dsa.judging.models import Models
from dsa.judging.threads import crowding
from dsa.judging.world import first_process, wait_for_all
from dsa.spec import Spec
from dsa.training.assemble import Findings, assemble
from dsa.training.base import make_base
from dsa.training.blank import blank
from dsa.training.cohort import make_indexers
from dsa.training.console import said, show_config, show_result, show_start
from dsa.training.dashboard import SHARED, Dashboard, final_values, flat_config
from dsa.training.errors import category, expected, reason
from dsa.training.joint import make_joint
from dsa.training.log import METRICS, RunLog, read_rows
from dsa.training.loggers import LocalFiles, RunLogger
from dsa.training.rehearsal import rehearse
from dsa.training.run_log import RunLogFile

logger = logging.getLogger(__name__)
CONFIG, LOG = "config.yaml", "run.log"


class RunFailed(Exception):
    """A run ended without a result; one paragraph says why, and its folder says it too.

    Args:
        kind: what sort of failure it was (errors.category).
    """

    def __init__(self, reason: str, kind: str = "error") -> None:
        super().__init__(reason)
        self.kind = kind


class Run:
    """One run: its spec, its data, what it needs, and its folder.

    Args:
        data: None if it could not be read; then the run can only fail.
        label, group: of the run on a dashboard.
        silent: no dashboard hears of it.
    """

    def __init__(
        self, spec: Spec, data: DataModule | None, label: str = "run", group: str | None = None, silent: bool = False
    ) -> None:
        self.spec, self.data = spec, data
        self.graph = graph_of(spec, None if data is None else data.fingerprint)
        self.store = Store(spec.outputs, spec.stale)
        place = spec.outputs / spec.study
        name = run_id(spec, self.graph)
        if not (place / name).exists():  # another spelling of the same run may have made it
            name = min((path.name for path in place.glob(f"*-{self.graph.hash}")), default=name)
        self.folder = place / name
        tags = tuple(f"{group}:{option}" for group, option in spec.condition.items())
        self.dashboard = Dashboard(spec, self.folder.name, group or spec.study, label, tags, silent)

    @property
    def name(self) -> str:
        return self.folder.name

    def untrained(self) -> bool:
        """Whether something that the run stands on has to be trained."""
        graph = self.graph
        needs = [need for need in (graph.base, graph.indexers, graph.joint) if need is not None]
        return self.spec.rerun or any(self.store.find(need) is None for need in needs)

    def unjudged(self) -> bool:
        """Whether there is a composition that has not been judged on what the run stands on."""
        return not self.spec.dense and self.store.judgement(self.graph.final) is None

    def finished(self) -> RunResult | None:
        """The run's result, if it is there, whole, and made by this code."""
        result = read_result(self.folder)
        if result is None or result.status != "finished" or self.spec.rerun:
            return None
        if result.provenance.get("code") != self.graph.code and self.spec.stale == "rerun":
            logger.info("%s was made by other code: it is run again (stale=keep accepts it).", self.name)
            return None
        return result


def train(spec: Spec, show: bool = True) -> RunResult:
    """Carry out what a spec describes, with everything that it stands on.

    A finished run is not repeated: its result is shown and returned. An interrupted one goes on.

    Args:
        show: the configuration too, before anything is made.

    Raises:
        RunFailed: with one paragraph that says which setting, what it got and what is allowed.
    """
    with failures_kept(spec, None):
        run = Run(spec, build_data(spec))
    with failures_kept(spec, run):
        done = run.finished()
    if done is None:
        done, farewell = execute(run, show=show)
        with logged(run):
            say_result(done, farewell)
    else:
        say_result(done, [])
    return done


def say_result(result: RunResult, farewell: list[str]) -> None:
    """Show a result, once for all processes."""
    if first_process():
        show_result(result, farewell)


def tell_crowding(spec: Spec) -> None:
    """Say what to do where the threads of training on the processor have too few cores."""
    if torch.cuda.is_available() and spec.trainer.accelerator in ("auto", "gpu", "cuda"):
        return
    advice = crowding(torch.get_num_threads(), "train.py")
    if advice is not None:
        logger.warning(advice)


def execute(
    run: Run, models: Models | None = None, wait: bool = False, timed: bool = True, show: bool = False
) -> tuple[RunResult, list[str]]:
    """The result of a run, worked out now unless it is there, and what to tell the user about its dashboard.

    Args:
        models: puts models together; one that is handed from run to run reads each base once.
        wait: for another process that works on this very run, instead of failing.
        timed: measure a forward pass and the memory of a step too, which takes as long as judging a small model.
        show: the configuration, before anything is made.
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
        if show and first_process():
            show_config(run.spec)
            tell_crowding(run.spec)
        if run.untrained() or run.unjudged():
            rehearse(run.spec, run.data)
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
                logger.warning("%s: interrupted, to be continued from its last checkpoint.", run.name)
            board.summary({"status": "interrupted"} if stopped else {"status": "failed", "reason": str(error)})
            board.finish(failed=True)
            raise
        board.finish(failed=False)
        return result, board.farewell()


def own_names(run: Run) -> dict[str, Any]:
    """The run's id and those of what it is made of."""
    parts = {"base": run.graph.base, "indexers": run.graph.indexers, "joint": run.graph.joint}
    return {"run_id": run.name} | {kind: None if need is None else need.name for kind, need in parts.items()}


def work(run: Run, data: DataModule, board: RunLogger, models: Models, timed: bool) -> RunResult:
    """Find or make what the run needs, judge it, and write its row."""
    spec, graph, store = run.spec, run.graph, run.store
    if first_process():
        show_start(spec, run.name)
    log = RunLog(run.folder / METRICS if first_process() else None, board)
    train_needs(run, data, log)
    rows = read_rows(run.folder / METRICS) if (run.folder / METRICS).exists() else []
    found = Findings(
        final=judged(run, graph.final, data, models),
        dense=None if graph.dense is None else judged(run, graph.dense, data, models),
        swap=None if graph.swap is None else judged(run, graph.swap, data, models),
        window=None if graph.window is None else judged(run, graph.window, data, models),
        control=control_of(run, data, models),
        base_training=base_training(run),
        rows=rows,
        control_rows=[] if graph.control is None else rows_of(store, graph.control),
    )
    if first_process():
        model = models.of(spec, graph.final)
        restore(model, found.final.get("constants", {}))
        result = assemble(spec, graph, run.folder, data, model, found, timed)
        board.summary(final_values(result))
        result.write(run.folder)
    wait_for_all()
    written = read_result(run.folder)
    assert written is not None
    return written


def base_training(run: Run) -> dict[str, Any]:
    """How long the base was trained, and what it reached of its criterion; empty without a base."""
    found = None if run.graph.base is None else run.store.find(run.graph.base)
    return {} if found is None else found.record["trained"]


def train_needs(run: Run, data: DataModule, log: RunLog) -> None:
    """Base, indexers, control and joint training: each found, or made now."""
    spec, graph, store = run.spec, run.graph, run.store
    found = [need.name for need in (graph.base, graph.indexers) if need is not None and store.find(need) is not None]
    if found and first_process():
        logger.info("there already, not trained again: %s", " and ".join(found))
    if graph.base is not None:
        make_base(store, spec, graph.base, data, shared(spec, graph.base, "base"))
        if not spec.sparse:
            log.replay(rows_of(store, graph.base))
    if graph.indexers is not None:
        quiet = shared(spec, graph.indexers, "cohort", silent=True)  # its rows are the run's own
        failed = make_indexers(store, [(spec, graph.indexers)], data, quiet, log, again=spec.rerun)
        if failed:
            raise FloatingPointError(failed[graph.indexers.hash])
        log.replay(rows_of(store, graph.indexers))
    if graph.joint is None:
        return
    if graph.control is not None and graph.control != graph.joint and spec.dense_control:
        make_joint(store, spec, graph.control, data, shared(spec, graph.control, "control"))
    quiet = shared(spec, graph.joint, "joint", silent=True)
    make_joint(store, spec, graph.joint, data, quiet, log, run.folder / "maps", again=spec.rerun)
    log.replay(rows_of(store, graph.joint))


def shared(spec: Spec, need: Need, job_type: str, silent: bool = False) -> Dashboard:
    """An artifact on a dashboard, in the group of what runs share."""
    return Dashboard(spec, need.name, SHARED, job_type, silent=silent)


def rows_of(store: Store, need: Need) -> list[dict[str, str]]:
    """The metrics of an artifact's training; none if it is not there."""
    path = store.folder(need) / METRICS
    return read_rows(path) if path.exists() else []


def control_of(run: Run, data: DataModule, models: Models) -> dict[str, Any] | None:
    """The judgement of the dense control; None if there is none."""
    graph = run.graph
    if graph.control is None or graph.control_final is None or run.store.find(graph.control) is None:
        return None
    return judged(run, graph.control_final, data, models)


def judged(run: Run, need: Need, data: DataModule, models: Models) -> dict[str, Any]:
    """A judgement, made now unless it is there."""
    spec, store = run.spec, run.store
    found = None if spec.rerun else store.judgement(need)
    wait_for_all()
    if found is not None:
        return found
    composition = need.identity["composition"]
    look = composition is not None and not composition.get("nearest")
    record = judge(spec.trainer, spec.dtype, data, models.of(spec, need), look)
    if first_process():
        store.keep_judgement(need, record)
    wait_for_all()
    return record


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
        (run.folder / FILE).unlink(missing_ok=True)
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
    """Hold the run's lock, which a killed process gives back by itself.

    Raises:
        RunFailed: the run is under way elsewhere, or its folder cannot be written; nothing there is touched.
    """
    if not first_process():
        yield
        return
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
        yield


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
