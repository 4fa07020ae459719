"""`dsa.config.compose` by way of the planner's composer, which takes a twentieth of the time.

tests/test_options.py and tests/study/test_planning.py hold that composer to Hydra's composition. Hydra itself composes
what only Hydra understands, and says what is wrong with what cannot be composed.
"""

import functools
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from dsa import config
from dsa.study.composer import Composer

by_hydra = config.compose
Setting = tuple[str, Any]
PLAIN = (bool, int, float, str, list, type(None))


def compose(overrides: list[str] | None = None, config_name: str = "train") -> DictConfig:
    """As `dsa.config.compose`."""
    settings = [setting(override) for override in overrides or []]
    if config_name != "train" or None in settings:
        return by_hydra(overrides, config_name)
    try:
        content = composer(config.config_dir()).config(dict(settings))  # type: ignore[arg-type]
    except (HydraException, ValueError):
        by_hydra(overrides)
        raise
    return OmegaConf.create(content)


@functools.cache
def setting(override: str) -> Setting | None:
    """The key and value of an override; None for one that does more than give a key a single value."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return None
    key, value = parsed.key_or_group, plain(parsed.value())
    alone = parsed.type == OverrideType.CHANGE and parsed.package is None and not parsed.is_sweep_override()
    wanted = str if (config.config_dir() / key).is_dir() else PLAIN
    return (key, value) if alone and isinstance(value, wanted) else None


def plain(value: Any) -> Any:
    """A value without Hydra's marks of how it was written."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.text if isinstance(value, QuotedString) else value


@functools.cache
def composer(folder: Path) -> Composer:
    """That of a folder of configurations."""
    return Composer(functools.partial(whole, folder, "train"), [], set())


def whole(folder: Path, config_name: str, overrides: list[str]) -> DictConfig:
    """Hydra's composition, its own part included."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        return hydra_compose(config_name, overrides, return_hydra_config=True)
