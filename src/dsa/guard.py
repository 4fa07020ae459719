"""What Hydra builds by itself, before a program begins: refused where it is neither Hydra's own nor the user's.

Hydra makes callbacks, log handlers, sweeper and launcher from whatever its node of the composed configuration says, and
sets environment variables from it. Any yaml that is composed can say it, so the composed node is looked at each time.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from dsa.targets import HOW, TargetRefused, class_of, inside, targets

CALLBACK = "hydra.experimental.callback.Callback"
LOGGING = (
    "logging.Formatter", "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler",
    "logging.handlers.RotatingFileHandler", "colorlog.ColoredFormatter",
)  # fmt: skip
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
CALLED = ("()", "class", ".", "queue", "listener")  # keys with which logging calls or sets something
VARIABLES = "hydra.job.env_set."


@contextmanager
def guarded(arguments: Sequence[str]) -> Iterator[None]:
    """Look at every configuration that Hydra composes in this process.

    Args:
        arguments: the command line: what it says itself is the user's word, and so are the packages it admits.
    """
    if any(argument.startswith("--e") for argument in arguments):  # argparse takes abbreviations
        raise HydraException("--experimental-rerun unpickles a file, which can run anything: give the settings again.")
    whole = ConfigLoaderImpl.load_configuration

    @functools.wraps(whole)
    def checked(self: ConfigLoaderImpl, *given: Any, **named: Any) -> DictConfig:
        cfg = whole(self, *given, **named)
        try:
            check(cfg, arguments, named.get("run_mode") == RunMode.MULTIRUN)
        except (TargetRefused, OmegaConfBaseException) as error:
            raise HydraException(f"{error}") from error
        return cfg

    ConfigLoaderImpl.load_configuration = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = whole  # type: ignore[method-assign]


def check(cfg: DictConfig, arguments: Sequence[str], multirun: bool) -> None:
    """Refuse what Hydra would build or set, and leave of its callbacks what was looked at, as plain data.

    Raises:
        TargetRefused: with a sentence that names the key.
    """
    admitted = packages_in(arguments)
    callbacks = plain(cfg, "hydra.callbacks")
    for name, node in callbacks.items():
        where = f"hydra.callbacks.{name}"
        settings = dict(node or {})
        class_of(settings.pop("_target_", None), where, CALLBACK, ("hydra", *admitted))
        refuse_inner(settings, where)
    with flag_override(cfg, "struct", False), read_write(cfg), open_dict(cfg.hydra):
        cfg.hydra.callbacks = callbacks
    if multirun:  # Hydra itself admits plugins alone at the top of these
        for part in ("hydra.sweeper", "hydra.launcher"):
            refuse_inner({key: value for key, value in plain(cfg, part).items() if key != "_target_"}, part)
    started = deepcopy(cfg)  # what Hydra knows of a job only when it begins
    with flag_override(started, "struct", False), read_write(started):
        OmegaConf.update(started, "hydra.runtime.output_dir", "/", force_add=True)
        for part in ("id", "num"):
            OmegaConf.update(started, f"hydra.job.{part}", 0, force_add=True)
    for part in ("hydra.hydra_logging", "hydra.job_logging"):
        check_logging(plain(started, part), part, admitted)
    for name in plain(cfg, "hydra.job.env_set"):
        if not any(argument.lstrip("+").startswith(f"{VARIABLES}{name}=") for argument in arguments):
            raise TargetRefused(f"{VARIABLES}{name}: only the command line may set environment variables.")


def plain(cfg: DictConfig, key: str) -> dict[str, Any]:
    """A part of the configuration, every interpolation resolved."""
    node = OmegaConf.select(cfg, key)
    return {} if node is None else OmegaConf.to_container(node, resolve=True)  # type: ignore[return-value]


def packages_in(arguments: Sequence[str]) -> list[str]:
    """The packages that a command line admits (allow_targets=[...])."""
    given = [a.lstrip("+") for a in arguments if a.lstrip("+").startswith("allow_targets=")]
    values = [OverridesParser.create().parse_override(one).value() for one in given]
    return [str(name) for value in values if isinstance(value, list) for name in value]


def refuse_inner(node: Any, path: str) -> None:
    """Refuse classes inside the settings of an object."""
    for where, target in targets(node, path):
        raise TargetRefused(f"{where} = {target}: no class can be given there.")


def check_logging(node: Any, path: str, admitted: Sequence[str]) -> None:
    """Refuse handlers and formatters that are not among LOGGING, and objects that logging would import by name."""
    if isinstance(node, str) and "://" in node.split(" ")[0] and node not in STREAMS:
        raise TargetRefused(f"{path} = {node}: give one of {', '.join(STREAMS)}.")
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        where = f"{path}.{key}"
        if key in CALLED and not (key in CALLED[:2] and (value in LOGGING or inside(str(value), admitted))):
            package = str(value).split(".")[0]
            raise TargetRefused(f"{where} = {value}: give one of {', '.join(LOGGING)}. {HOW.format(package)}")
        check_logging(value, where, admitted)
