"""What a run needs is found or made, then judged, and its row is written."""

import logging
from typing import Any

from dsa.artifacts.files import METRICS
from dsa.artifacts.results import RunResult, read_result
from dsa.artifacts.store import Store
from dsa.data import DataModule
from dsa.graph import Need
from dsa.judging.calibrate import restore
from dsa.judging.judge import judge
from dsa.judging.models import Models
from dsa.judging.world import first_process, wait_for_all
from dsa.spec import Spec
from dsa.training.assemble import Findings, assemble
from dsa.training.base import make_base
from dsa.training.cohort import make_indexers
from dsa.training.console import show_start
from dsa.training.dashboard import SHARED, Dashboard, final_values
from dsa.training.joint import make_joint
from dsa.training.log import RunLog, read_rows
from dsa.training.loggers import RunLogger
from dsa.training.room import Made, too_wide
from dsa.training.run import Run

logger = logging.getLogger(__name__)


def work(run: Run, data: DataModule, board: RunLogger, models: Models, timed: bool) -> RunResult:
    """Find or make what the run needs, judge it, and write its row."""
    spec, graph, store = run.spec, run.graph, run.store
    if first_process():
        show_start(spec, run.name)
        if (reason := too_wide(Made(spec))) is not None:
            logger.warning("%s.", reason)
    log = RunLog(run.folder / METRICS if first_process() else None, board)
    train_needs(run, data, log)
    rows = read_rows(run.folder / METRICS) if (run.folder / METRICS).exists() else []
    found = Findings(
        final=judged(run, graph.final, data, models),
        dense=None if graph.dense is None else judged(run, graph.dense, data, models),
        swap=None if graph.swap is None else judged(run, graph.swap, data, models),
        window=None if graph.window is None else judged(run, graph.window, data, models),
        sinks=None if graph.sinks is None else judged(run, graph.sinks, data, models),
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
        store.keep_judgement(store.named(need), record)
    wait_for_all()
    return record
