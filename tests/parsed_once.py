"""The files of conf/ and Hydra's own are parsed once in a process, however often tests compose them."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource


def parsed_once(source: type[ConfigSource], changed: Callable[[ConfigSource, str], int]) -> None:
    """Have a kind of source keep what it parsed, and hand out copies of it until the file changes."""
    load, kept = source.load_config, {}

    @functools.wraps(load)
    def loaded(self: ConfigSource, config_path: str) -> ConfigResult:
        key = self.path, config_path, changed(self, config_path)
        if key not in kept:
            kept[key] = load(self, config_path)
        result = copy.deepcopy(kept[key])
        result.provider = self.provider
        return result

    source.load_config = loaded  # type: ignore[method-assign]


def written(source: ConfigSource, config_path: str) -> int:
    """When a file was written [ns]."""
    path = Path(source.path) / f"{config_path.removesuffix('.yaml')}.yaml"
    return path.stat().st_mtime_ns if path.exists() else 0


Plugins.instance()  # it imports the modules of the sources anew, and registers the classes that are made then
parsed_once(SourcesRegistry.instance().resolve("file"), written)
parsed_once(SourcesRegistry.instance().resolve("pkg"), lambda *_: 0)  # of installed packages
