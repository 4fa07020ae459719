"""From a command line to studies carried through; the sweeper plugin is a thin shell around this."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf

from dsa.checks import texts
from dsa.study.composer import Composer, Load
from dsa.study.drive import Dispatch, Drive
from dsa.study.lists import values_of
from dsa.study.messages import show_outcome, show_plan, show_submitted, show_threads, show_time
from dsa.study.options import Options, options_of, private_keys
from dsa.study.plan import DataStore, StudyPlan, plan_study
from dsa.study.question import Study, read
from dsa.study.workers.failures import Failure
from dsa.study.workers.submitit_queue import SubmititQueue

OWN = ("study", "name")


def sweep(
    cfg: DictConfig,
    arguments: list[str],
    load: Load,
    dispatch: Dispatch,
    workers: int = 1,
    queue: SubmititQueue | None = None,
    threads: int | None = None,
) -> int:
    """Plan and carry through what a command line asks; the exit status.

    Args:
        cfg: sweep.yaml as composed with the command line.
        arguments: the command line's overrides, without Hydra's own.
        load: Hydra's composition of sweep.yaml.
        dispatch: does jobs.
        workers: jobs that it does at once.
        queue: SLURM's, which needs no waiting and gives a job as many processes as it has devices; None without it.
        threads: that compute a job, where jobs are done here; None where whatever starts the workers decides.

    Raises:
        ValueError: a setting is impossible.
        OSError: the output folder cannot be written.
    """
    options = options_of(cfg)
    if cfg.planned is not None:
        raise ValueError(f"planned = {cfg.planned}: a sweep hands it to its own jobs; leave it out.")
    packages = cfg.allow_targets
    texts(list(packages) if isinstance(packages, ListConfig) else packages, "allow_targets")
    with all_kept():
        plans = plan_all(cfg, arguments, load, options)
        check_devices(plans, 1 if queue is None else queue.settings["tasks_per_node"])
        if not options.wait and queue is None:
            raise ValueError("wait = false: only a scheduler goes on alone; give hydra/launcher=submitit_slurm.")
        outputs = Path(cfg.output_dir)
        drive = Drive(plans, outputs, options, dispatch)
        drive.choose_finalists()
        show_plan(plans, workers, here=queue is None)
    if options.dry_run:
        return 0
    before = drive.begun_with()
    drive.threads = before or threads
    show_threads(before, threads)
    folders = [outputs / plan.study.name for plan in plans]
    if not options.wait:
        assert queue is not None
        show_submitted(drive.submit(queue), folders, any(plan.to_choose for plan in plans))
        return 0
    outcome = drive()
    show_outcome(outcome)
    from dsa.study.conclude import conclude  # late: a plan needs no statistics

    timing = options.timing and outcome.status == 0
    concluded = [conclude(folder, timing, drive.admitted) for folder in folders]
    show_time(outputs)
    return outcome.status if all(concluded) else 1


def plan_all(cfg: DictConfig, arguments: list[str], load: Load, options: Options) -> list[StudyPlan]:
    """The plans of all studies asked for: one, or the parts of a union."""
    given, extra = given_values(arguments)
    composer = Composer(load, extra, private_keys())
    lists = {key: values for key, values in given.items() if key not in (*OWN, *private_keys())}
    # a setting that is a list by nature takes the list for one value
    kept = {key: [values] for key, values in lists.items() if is_list(key, lists, composer)}
    data = DataStore()
    return [plan_study(study, composer, data) for study in studies(cfg, lists | kept, composer, options)]


@contextmanager
def all_kept() -> Iterator[None]:
    """Look for no garbage meanwhile: a plan keeps all that it makes, and to look through it would take seconds."""
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looked:
            gc.enable()


def is_list(key: str, lists: dict[str, list[Any]], composer: Composer) -> bool:
    """Whether a setting holds a list, by itself or in an option of its group that the command line names."""
    group, _, inner = key.partition(".")
    named = lists.get(group, []) if inner and group in composer.groups else []
    nodes = [composer.whole(()), *({group: composer.node(group, str(option))} for option in named)]
    return any(isinstance(at(node, key), list) for node in nodes)


def studies(
    cfg: DictConfig,
    given: dict[str, list[Any]],
    composer: Composer,
    options: Options,
) -> list[Study]:
    """The studies that the command line names, a union's parts each by itself."""
    plan: Any = OmegaConf.to_container(cfg.plan, resolve=False)
    chosen = cfg.hydra.runtime.choices.get("study")
    return parts_of(chosen, plan, cfg.name, given, composer, options)


def parts_of(
    chosen: str | None,
    plan: Any,
    named: str | None,
    given: dict[str, list[Any]],
    composer: Composer,
    options: Options,
    above: tuple[str, ...] = (),
) -> list[Study]:
    """A study, or the parts of a union.

    Args:
        chosen: the option of the group `study`; None for a study without a yaml.
        plan: what its yaml holds.
        named: what it is called in place of its yaml's name.
        above: unions that this one is part of.
    """
    name = named or (chosen or "").split("/")[-1]
    if not name:
        raise ValueError("study: give study=quick (the yamls are in conf/study), or name=NAME and lists of options.")
    if not isinstance(plan, dict):
        raise ValueError(f"study {name}: its yaml holds {plan}; give the keys of a study (docs/studies.md).")
    if "union" not in plan:
        whole = options.changed(plan)
        return [read(name, whole if chosen else {"exploratory": True} | whole, given, composer.groups)]
    others = sorted(set(plan) - {"union", "exploratory"})
    if others:
        raise ValueError(f"study {name}: a union has no {', '.join(others)}; it names studies and exploratory alone.")
    parts: list[Study] = []
    for part in plan["union"]:
        if part in (*above, chosen):
            raise ValueError(
                f"study {name}: union: {part} is part of itself; name studies that do not lead back to it."
            )
        inner = composer.study(part)
        if isinstance(inner, dict) and "exploratory" in plan:
            inner = inner | {"exploratory": plan["exploratory"]}
        inner_name = f"{named}-{part}" if named else None
        parts += parts_of(part, inner, inner_name, given, composer, options, (*above, str(chosen)))
    return parts


def given_values(arguments: list[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """Values by key on a command line, and the overrides that only Hydra understands (+key=value, ~key)."""
    given: dict[str, list[Any]] = {}
    extra: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None:
            extra.append(str(override.input_line))
        else:
            given[override.key_or_group] = values_of(override)
    return given, extra


def at(cfg: Any, key: str) -> Any:
    """What a configuration holds at a key; None if it has none."""
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, dict) else None
    return cfg


def check_devices(plans: list[StudyPlan], processes: int) -> None:
    """Refuse runs that want more devices than a launcher gives processes.

    Raises:
        ValueError: naming the launcher to use.
    """
    for spec in (run.spec for plan in plans for run in plan.applicable):
        trainer = spec.trainer
        devices = len(trainer.devices) if isinstance(trainer.devices, list) else trainer.devices
        if isinstance(devices, int) and max(devices, 1) != processes:
            given = "one process" if processes == 1 else f"{processes} processes a node"
            raise ValueError(
                f"trainer.devices = {trainer.devices}: this launcher gives a run {given}. Give "
                "hydra/launcher=submitit_slurm with hydra.launcher.tasks_per_node and gpus_per_node equal to the "
                "devices (docs/studies.md), or trainer.devices=1."
            )
        if trainer.num_nodes > 1 and processes == 1:
            raise ValueError(
                f"trainer.num_nodes = {trainer.num_nodes}: this launcher gives a run one process. "
                "Give hydra/launcher=submitit_slurm (docs/studies.md), or trainer.num_nodes=1."
            )


def in_process(work: Callable[[Path], Failure | None]) -> Dispatch:
    """A dispatch that works here, one job after the other."""
    return lambda jobs, files: [work(file) for file in files]
