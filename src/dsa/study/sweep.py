"""From a command line to studies carried through; the sweeper plugin is a thin shell around this."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsa.checks import folder_name
from dsa.study.composer import Composer, Load
from dsa.study.drive import Dispatch, Drive
from dsa.study.lists import values_of
from dsa.study.options import Options, options_of, private_keys
from dsa.study.plan import DataStore, StudyPlan, plan_study
from dsa.study.spec import Study, read
from dsa.study.submitit_queue import SubmititQueue
from dsa.study.tell import show_outcome, show_plan, show_submitted, show_time

OWN = ("study", "name")


def sweep(
    cfg: DictConfig,
    arguments: list[str],
    load: Load,
    dispatch: Dispatch,
    workers: int = 1,
    queue: SubmititQueue | None = None,
) -> int:
    """Plan and carry through what a command line asks; the exit status.

    Args:
        cfg: sweep.yaml as composed with the command line.
        arguments: the command line's overrides, without Hydra's own.
        load: Hydra's composition of sweep.yaml.
        dispatch: trains runs.
        workers: runs that it trains at once.
        queue: SLURM's, which needs no waiting and gives a run as many processes as it has devices; None without it.

    Raises:
        ValueError: a setting is impossible.
        OSError: the output folder cannot be written.
    """
    options = options_of(cfg)
    plans = plan_all(cfg, arguments, load, options)
    check_devices(plans, 1 if queue is None else queue.settings["tasks_per_node"])
    show_plan(plans, workers)
    if options.dry_run:
        return 0
    outputs = Path(cfg.output_dir)
    drive = Drive(plans, outputs, options, dispatch)
    if not options.wait:
        if queue is None:
            raise ValueError("wait = false: only a scheduler goes on alone; give hydra/launcher=submitit_slurm.")
        show_submitted(drive.submit(queue), [outputs / plan.study.name for plan in plans])
        return 0
    outcome = drive()
    folders = [outputs / plan.study.name for plan in plans]
    show_outcome(outcome)
    from dsa.study.conclude import conclude  # late: a plan needs no statistics

    timing = options.timing and outcome.status == 0
    concluded = [conclude(folder, timing, drive.stale, drive.allow_targets) for folder in folders]
    show_time(drive.unique)
    return outcome.status if all(concluded) else 1


def plan_all(cfg: DictConfig, arguments: list[str], load: Load, options: Options) -> list[StudyPlan]:
    """The plans of all studies asked for: one, or the parts of a union."""
    given, extra = given_values(arguments)
    composer = Composer(load, extra, private_keys())
    lists = {key: values for key, values in given.items() if key not in (*OWN, *private_keys())}
    listed = composer.whole(())
    kept = {key: [values] for key, values in lists.items() if is_list_setting(listed, key)}
    data = DataStore()
    return [plan_study(study, composer, data) for study in studies(cfg, lists | kept, load, options, composer.groups)]


def studies(
    cfg: DictConfig, given: dict[str, list[Any]], load: Load, options: Options, groups: set[str]
) -> list[Study]:
    """The studies that the command line names, a union's parts each by itself."""
    plan: dict[str, Any] = OmegaConf.to_container(cfg.plan, resolve=False)  # type: ignore[assignment]
    chosen = cfg.hydra.runtime.choices.get("study")
    name = cfg.name or (chosen or "").split("/")[-1]
    if not name:
        raise ValueError("study: give study=quick (the yamls are in conf/study), or name=NAME and lists of options.")
    folder_name(name, "name")
    if options.exploratory is not None:
        plan["exploratory"] = options.exploratory
    if "union" not in plan:
        return [read(name, plan if chosen else {"exploratory": True} | plan, given, groups)]
    parts: list[Study] = []
    for part in plan["union"]:
        inner = load([f"study={part}"])
        inner.plan = OmegaConf.merge(inner.plan, {"exploratory": plan["exploratory"]} if "exploratory" in plan else {})
        inner.name = f"{cfg.name}-{part}" if cfg.name else None
        parts += studies(inner, given, load, options, groups)
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


def is_list_setting(cfg: DictConfig, key: str) -> bool:
    """Whether a setting is a list by nature, so that a list for it is one value."""
    try:
        return OmegaConf.is_list(OmegaConf.select(cfg, key))
    except OmegaConfBaseException:  # not there, or an interpolation that means nothing yet
        return False


def check_devices(plans: list[StudyPlan], processes: int) -> None:
    """Refuse runs that want more devices than a launcher gives processes.

    Raises:
        ValueError: naming the launcher to use.
    """
    for plan in plans:
        for run in plan.applicable:
            trainer = run.template.trainer
            devices = len(trainer.devices) if OmegaConf.is_list(trainer.devices) else trainer.devices
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


def in_process(work: Callable[[Path], str | None]) -> Dispatch:
    """A dispatch that trains here, one run after the other."""
    return lambda runs, files: [work(file) for file in files]
