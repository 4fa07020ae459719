"""Configurations: composed from conf/, with the option chosen in each group."""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError

from dsa import share as share  # ${share:...} is understood wherever a configuration is composed


def config_dir() -> Path:
    """The folder of the shipped configurations: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parent
    inside, beside = package / "conf", package.parents[1] / "conf"
    return inside if inside.is_dir() else beside


def compose(overrides: list[str] | None = None, config_name: str = "train") -> DictConfig:
    """The configuration that `python train.py <overrides>` would run.

    Raises:
        hydra.errors.HydraException: an option or key does not exist; the message lists what does.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = hydra_compose(config_name, list(overrides or []), return_hydra_config=True)
        choices, task = cfg.hydra.runtime.choices, list(cfg.hydra.overrides.task)
        with open_dict(cfg):
            del cfg["hydra"]
    return with_choices(cfg, choices, task)


def with_choices(cfg: DictConfig, choices: Mapping[str, str], overrides: list[str]) -> DictConfig:
    """The configuration with the option chosen in each group, and the groups in which a value was changed.

    Raises:
        ValueError: a group was given several options, which Hydra would merge.
    """
    for override in overrides:
        group, _, value = override.lstrip("+~").partition("=")
        if value.startswith("[") and (config_dir() / group).is_dir():
            raise ValueError(f"{group} = {value}: give one option; several are for -m or sweep.py, as {group}=a,b.")
    marks = marked(choices, overrides)
    with open_dict(cfg):
        cfg.choices, cfg.overridden = marks["choices"], marks["overridden"]
    return cfg


def marked(choices: Mapping[str, str], overrides: list[str]) -> dict[str, Any]:
    """The option chosen in each group, and the groups in which a value was changed."""
    inner = {group for group in choices if "/" in group or "@" in group}  # an option that stands inside another
    named = {group: option for group, option in choices.items() if group not in inner and option is not None}
    keys = [override.lstrip("+~").split("=")[0] for override in overrides]
    touched = {re.split("[.@]", key)[0] for key in keys if "." in key} | experiment_groups(named.get("experiment"))
    return {"choices": named, "overridden": sorted(touched & set(named))}


@functools.cache
def experiment_groups(name: str | None) -> set[str]:
    """Groups in which a shipped experiment changes values."""
    path = config_dir() / "experiment" / f"{name}.yaml"
    return {str(key) for key in OmegaConf.load(path)} if name is not None and path.exists() else set()


def choice(cfg: DictConfig | dict[str, Any], group: str) -> str:
    """Name of the option in a group; with `~` behind it if a value inside was overridden."""
    name = cfg["choices"].get(group, "custom")
    return f"{name}~" if group in cfg["overridden"] else name


def read_config(path: Path, resolve: bool = True) -> dict[str, Any]:
    """A configuration in a file as plain data, its interpolations resolved or as they stand."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=resolve)  # type: ignore[return-value]


def shipped(group: str, content: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The shipped options of a group that are made of no others: each one's name and settings.

    Args:
        content: the configuration in which they are resolved.
    """
    for path in sorted((config_dir() / group).glob("*.yaml")):
        node = OmegaConf.load(path)
        if "defaults" not in node:
            yield path.stem, resolved(OmegaConf.create({**content, group: node}))[group]


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain data, every interpolation resolved.

    Raises:
        omegaconf.errors.OmegaConfBaseException: an interpolation leads nowhere.
        ValueError: a share of the length cannot be worked out.
    """
    try:
        return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]
    except InterpolationResolutionError as error:
        inner: BaseException | None = error
        while isinstance(inner, InterpolationResolutionError):
            inner = inner.__cause__ or inner.__context__
        raise inner if type(inner) is ValueError else error from None
