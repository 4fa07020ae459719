"""One run from configuration to result: its dense base, its dense control, its stages, what they measured."""

import logging
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from dsa.build import build_data, build_model, instantiate
from dsa.checks import at_least, folder_name, positive
from dsa.config import GROUPS, choice, digest
from dsa.data import DataModule
from dsa.model import Pass, SparseTransformer
from dsa.targets import check_targets
from dsa.training.assemble import assemble, blank
from dsa.training.console import show_config, show_result, show_start
from dsa.training.dashboard import final_values, flat_config, identity
from dsa.training.errors import category, expected
from dsa.training.fit import WEIGHTS, load_weights, remove_stages, train_stage
from dsa.training.judge import judged, judged_untouched, recorded
from dsa.training.log import RunLog
from dsa.training.mirrors import Mirror, NoMirror
from dsa.training.plan import Plan, base_of, control_of, sparse_run
from dsa.training.result import FILE, RunResult, read_result
from dsa.training.world import first_process, wait_for_all

logger = logging.getLogger(__name__)


class RunFailed(Exception):
    """A run ended without a result; one paragraph says why, and its folder says it too.

    Args:
        kind: what sort of failure it was (errors.category).
        where: name of the run that failed; None if it never had one.
    """

    def __init__(self, reason: str, kind: str = "error", where: str | None = None) -> None:
        super().__init__(reason)
        self.kind, self.where = kind, where


def train(cfg: DictConfig) -> RunResult:
    """Train what a configuration describes, with the dense runs that it stands on.

    A finished run is not repeated: its result is shown and returned. An interrupted one goes on.

    Raises:
        RunFailed: with one paragraph that says which setting, what it got and what is allowed.
    """
    with failures_kept(cfg, None):
        check_targets(cfg)
        plan = Plan(cfg, build_data(cfg))
        if first_process() and finished(plan) is None:
            show_config(cfg)
    result, farewell = run(plan, "run")
    if first_process():
        show_result(result, farewell)
    return result


def run(plan: Plan, kind: str) -> tuple[RunResult, list[str]]:
    """The result of a run, trained now unless it is there, and what to tell the user about its dashboard."""
    done = finished(plan)
    if done is not None:
        return done, []
    with alone(plan, wait=kind != "run"), failures_kept(plan.cfg, plan), logged(plan):
        done = finished(plan)  # another process may have finished it while this one waited
        if done is not None:
            return done, []
        assert plan.data is not None
        if kind == "run":
            rehearse(plan, plan.data)
        base_cfg, control_cfg = base_of(plan.cfg), control_of(plan.cfg)
        base = run(Plan(base_cfg, plan.data), "base")[0] if base_cfg is not None else None
        control = dense_control(plan, Plan(control_cfg, plan.data)) if control_cfg is not None else None
        resumed = begin(plan)
        mirror: Mirror = instantiate(plan.cfg, "logger") if first_process() else NoMirror()
        mirror.start(plan.folder, identity(plan, kind, resumed), flat_config(plan, base))
        try:
            result = execute(plan, plan.data, mirror, base, control)
        except BaseException as error:
            if category(error) == "nan":
                mirror.alert("Loss is not a number", str(error))
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Lightning turns Ctrl-C into an exit
            if stopped:
                logger.warning("interrupted: the same command goes on from the last checkpoint.")
            mirror.summary({"status": "interrupted"} if stopped else {"status": "failed", "reason": str(error)})
            mirror.finish(failed=True)
            raise
        mirror.finish(failed=False)
        return result, mirror.farewell()


def rehearse(plan: Plan, data: DataModule) -> None:
    """Meet every setting once, with one row and no training, so that a bad one fails now and not after an hour."""
    cfg = plan.cfg
    for name in ("val_every", "checkpoint_every"):
        positive(cfg.callbacks[name], f"callbacks.{name}")
    at_least(cfg.callbacks.maps_every, 0, "callbacks.maps_every")
    positive(cfg.trainer.accumulate, "trainer.accumulate")
    instantiate(cfg, "objective"), instantiate(cfg, "logger")
    model = build_model(cfg, data.vocab_size)
    instantiate(cfg, "optimizer")([{"params": list(model.parameters()), "lr": 0.0}])
    if sparse_run(cfg):
        with torch.no_grad():
            model.run(data.batch("rehearsal", 0).tokens[:1], Pass(teach=True))


def finished(plan: Plan) -> RunResult | None:
    """The run's result, if it is there, whole, and made by this code."""
    cfg, result = plan.cfg, read_result(plan.folder)
    if cfg.stale not in ("rerun", "keep"):
        raise ValueError(f"stale = {cfg.stale}: give rerun or keep.")
    if result is None or result.status != "finished" or cfg.rerun:
        return None
    if result.provenance.get("code") != plan.code and cfg.stale == "rerun":
        logger.info("%s was made by other code of this package: it is run again (stale=keep accepts it).", plan.run_id)
        return None
    return result


def dense_control(plan: Plan, control: Plan) -> RunResult | None:
    """The dense control's result; None if this run is the control itself, or may only look and finds none."""
    if control.config_hash == plan.config_hash:
        return None
    return run(control, "control")[0] if plan.cfg.dense_control else finished(control)


def begin(plan: Plan) -> bool:
    """Make the run folder ready: forget what may not be continued, write down the configuration.

    Returns: whether there is something to go on from.
    """
    resumed = False
    if first_process():
        marker = plan.folder / "code.txt"
        other = marker.exists() and marker.read_text() != plan.code
        if plan.cfg.rerun or not plan.cfg.resume or other:
            for name in ("checkpoints", "maps", "wandb", "tensorboard"):
                shutil.rmtree(plan.folder / name, ignore_errors=True)
            (plan.folder / "metrics.csv").unlink(missing_ok=True)
        resumed = (plan.folder / "metrics.csv").exists()
        (plan.folder / FILE).unlink(missing_ok=True)
        (plan.folder / "checkpoints").mkdir(exist_ok=True)
        marker.write_text(plan.code)
        OmegaConf.save(OmegaConf.create(OmegaConf.to_container(plan.cfg, resolve=True)), plan.folder / "config.yaml")
    wait_for_all()
    return resumed


def execute(
    plan: Plan, data: DataModule, mirror: Mirror, base: RunResult | None, control: RunResult | None
) -> RunResult:
    """Go through the stages that are not done, then put the result together."""
    model = build_model(plan.cfg, data.vocab_size)
    if base is not None:
        load_weights(model, final_weights(Path(base.folder)))
    log = RunLog(plan.folder / "metrics.csv" if first_process() else None, mirror)
    if first_process():
        show_start(plan)
    stages = [stage for stage in plan.stages if base is None or stage.name != "dense"]
    kept, swap = plan.folder / "checkpoints", None
    for stage in stages:
        if stage.name == "sparse" and base is not None:
            swap = recorded(kept / "swap.json", partial(judged_untouched, plan, data, model))
        model = train_stage(plan, data, model, stage, log)
    if base is not None and not any(stage.sparse for stage in stages):  # the backbone was never touched
        final = swap = recorded(kept / "swap.json", partial(judged_untouched, plan, data, model))
    else:
        final = recorded(kept / "final.json", partial(judged, plan, data, model, sparse_run(plan.cfg)))
    if first_process():
        result = assemble(plan, data, model, log, final, swap, base, control)
        mirror.summary(final_values(result))
        if not stages:
            save_weights(model, kept / "untouched")
        remove_stages(plan, but=stages[-1].name if stages else "untouched")
        result.write(plan.folder)
    wait_for_all()
    written = read_result(plan.folder)
    assert written is not None
    return written


def save_weights(model: SparseTransformer, folder: Path) -> None:
    """The weights of a run without a stage of its own, as a stage would leave them."""
    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, folder / WEIGHTS)


def final_weights(folder: Path) -> Path:
    """Weights at the end of a finished run."""
    return next((folder / "checkpoints").glob(f"*/{WEIGHTS}"))


@contextmanager
def alone(plan: Plan, wait: bool) -> Iterator[None]:
    """Hold the run folder's lock, which a killed process gives back by itself.

    Args:
        wait: until another process has finished the run, instead of refusing.

    Raises:
        RunFailed: the run is under way elsewhere, or its folder cannot be written; nothing there is touched.
    """
    if not first_process():
        yield
        return
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise RunFailed(
                    f"{plan.folder}: another process is training this run. Wait for it, or give another name=NAME."
                ) from None
            logger.info("waiting for another process to finish %s", plan.run_id)
            lock.acquire()
    except OSError as error:
        raise RunFailed(f"output_dir = {plan.cfg.output_dir}: cannot write {plan.folder} ({error}).") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def logged(plan: Plan) -> Iterator[None]:
    """Copy the package's log and Python's warnings to run.log in the run folder."""
    if not first_process():
        yield
        return
    handler = logging.FileHandler(plan.folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    sources = [logging.getLogger(name) for name in ("dsa", "pytorch_lightning", "py.warnings")]
    for source in sources:
        source.addHandler(handler)
    try:
        yield
    finally:
        for source in sources:
            source.removeHandler(handler)
        handler.close()


@contextmanager
def failures_kept(cfg: DictConfig, plan: Plan | None) -> Iterator[None]:
    """Turn an error into a failed result in the run folder and one paragraph for the user.

    Raises:
        RunFailed: instead of the error; an interruption goes through, and leaves the run to be continued.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except RunFailed as error:
        if plan is not None and error.where not in (None, plan.run_id):
            reason = f"its dense run {error.where} failed: {error}"
            keep_failure(cfg, plan, error.kind, reason, traceback.format_exc())
        raise
    except BaseException as error:
        reason, kind = str(error) or type(error).__name__, category(error)
        log = keep_failure(cfg, plan, kind, reason, traceback.format_exc())
        told = reason if expected(error) else f"{reason} (details: {log})"
        raise RunFailed(told, kind, None if plan is None else plan.run_id) from error


def refused(cfg: DictConfig) -> RunResult:
    """The result of a configuration that describes no run: under its run's name if it can have one, else its own."""
    try:
        return blank(Plan(cfg, None))
    except (ValueError, TypeError, AttributeError):
        name = f"refused-{digest(OmegaConf.to_container(cfg))}"
        return RunResult(
            run_id=name,
            status="failed",
            study=cfg.study,
            condition={group: choice(cfg, group) for group in GROUPS},
            model=choice(cfg, "model"),
            data=choice(cfg, "data"),
            recipe=choice(cfg, "recipe"),
            seq_len=cfg.seq_len,
            seed=cfg.seed,
            folder=str(Path(cfg.output_dir) / folder_name(cfg.study, "study") / name),
        )


def keep_failure(cfg: DictConfig, plan: Plan | None, kind: str, reason: str, trace: str) -> Path | None:
    """Write status failed and the reason into the run folder, if there can be one; returns the log's path."""
    if not first_process():
        return None
    try:
        result = refused(cfg) if plan is None else blank(plan)
        folder = Path(result.folder)
        folder.mkdir(parents=True, exist_ok=True)
        before = read_result(folder)
        if before is None or before.status != "finished":  # a failed attempt to repeat a run keeps its result
            result.error = {"category": kind, "reason": reason}
            result.write(folder)
        log = folder / "run.log"
        with log.open("a") as file:
            file.write(trace)
        return log
    except (OSError, ValueError, TypeError, AttributeError) as second:
        logger.warning("the failure could not be written to a run folder: %s", second)
        return None
