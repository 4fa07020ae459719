"""Many configurations in little time: each option is composed once by Hydra, then merged."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from dsa.config import with_choices
from dsa.mistakes import alternatives
from dsa.study.share import at_length

Load = Callable[[list[str]], DictConfig]  # overrides -> the whole configuration, Hydra's part included
Layer = dict[str, Any]  # overrides by key, groups and dotted values alike


class Composer:
    """Configurations equal to full composition, at a hundredth of its cost.

    Args:
        load: Hydra's composition of sweep.yaml.
        extra: overrides that hold for every run and only Hydra understands (+key=value, ~key).
        private: keys of sweep.yaml that no run has.
    """

    def __init__(self, load: Load, extra: list[str], private: set[str]) -> None:
        self.load, self.extra, self.private = load, extra, private
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.choices: dict[tuple[str, ...], dict[str, Any]] = {}
        self.raw: dict[tuple[str, ...], dict[str, Any]] = {}
        self.nodes: dict[str, DictConfig | None] = {}
        self.places: list[Path] = []
        self.groups = set(self.options(()))

    def options(self, overrides: tuple[str, ...]) -> dict[str, Any]:
        """The option chosen in each group."""
        self.whole(overrides)
        return self.choices[overrides]

    def whole(self, overrides: tuple[str, ...]) -> DictConfig:
        """Hydra's own composition, remembered."""
        if overrides not in self.composed:
            cfg = self.load([*self.extra, *overrides])
            choices = {k: v for k, v in cfg.hydra.runtime.choices.items() if "/" not in k and k != "study"}
            self.places = [Path(source.path) for source in cfg.hydra.runtime.config_sources if source.schema == "file"]
            with open_dict(cfg):
                for key in ("hydra", *self.private):
                    cfg.pop(key, None)
            self.composed[overrides], self.choices[overrides] = cfg, choices
            self.raw[overrides] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
        return self.composed[overrides]

    def config(self, layers: Layer) -> DictConfig:
        """The configuration with these overrides, shares of the length worked out.

        Raises:
            hydra.errors.HydraException: an option does not exist; the message lists what does.
            ValueError: a key does not exist.
        """
        groups = {key: value for key, value in layers.items() if key in self.groups}
        wide = tuple(f"{group}={option}" for group, option in groups.items() if self.reaches_out(group, option))
        cfg, choices = deepcopy(self.whole(wide)), dict(self.options(wide))
        OmegaConf.set_struct(cfg, False)
        for group, option in groups.items():
            if f"{group}={option}" not in wide:
                cfg[group] = deepcopy(self.node(group, option, wide))
                choices[group] = option
        OmegaConf.set_struct(cfg, True)
        values = {key: value for key, value in layers.items() if key not in self.groups}
        seq_len = values.get("seq_len", cfg.seq_len)
        for key, value in values.items():
            self.put(cfg, key, at_length(value, seq_len), choices)
        return with_choices(cfg, choices, [*self.extra, *(f"{key}={value}" for key, value in values.items())])

    def node(self, group: str, option: str, wide: tuple[str, ...] = ()) -> Any:
        """What an option holds: as its file says, or as Hydra composes it."""
        found = self.file(group, option)
        return self.whole((*wide, f"{group}={option}"))[group] if found is None else found

    def file(self, group: str, option: str) -> DictConfig | None:
        """An option whose file is all that there is to it; None if Hydra has to compose it."""
        name = f"{group}={option}"
        if name not in self.nodes:
            paths = [place / group / f"{option}.yaml" for place in self.places]
            path = next((path for path in paths if path.is_file()), None)
            changed = any(root(override.lstrip("+~")).split("=")[0] == group for override in self.extra)
            self.nodes[name] = None if path is None or changed else plain(path)
        return self.nodes[name]

    def put(self, cfg: DictConfig, key: str, value: Any, choices: dict[str, Any]) -> None:
        try:
            OmegaConf.update(cfg, key, value, merge=True)
        except (ConfigAttributeError, ConfigKeyError) as error:
            group = root(key)
            option = f" of {group}={choices[group]}" if group in choices else ""
            raise ValueError(f"{key} = {value}: no such setting{option}. {alternatives(error)}") from error

    def has(self, key: str, option: str) -> bool:
        """Whether a setting exists with an option, given as group=option."""
        group, _, name = option.partition("=")
        node: Any = OmegaConf.to_container(self.node(group, name), resolve=False)
        for part in key.split(".")[1:]:
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def reaches_out(self, group: str, option: str) -> bool:
        """Whether an option changes more than its own group, as an experiment does; Hydra then composes it whole."""
        if self.file(group, option) is not None:
            return False
        one = (f"{group}={option}",)
        self.whole(())
        self.whole(one)
        base, changed = ({k: v for k, v in self.raw[key].items() if k != group} for key in ((), one))
        return base != changed


def plain(path: Path) -> DictConfig | None:
    """The content of an option's file; None if it is placed elsewhere (@package) or begins with other options."""
    text = path.read_text(encoding="utf-8")
    if "@package" in text:
        return None
    content = OmegaConf.create(text)
    return content if isinstance(content, DictConfig) and "defaults" not in content else None


def stacked(*layers: Layer, groups: set[str]) -> Layer:
    """Layers as one, the later ones on top.

    A value inside a group belongs to the option chosen beside it: where a later layer chooses another option, the
    value falls away. In what order a layer is written makes no difference, and a value without an option stands.
    """
    out: Layer = {}
    for layer in layers:
        replaced = {key for key in groups & layer.keys() & out.keys() if out[key] != layer[key]}
        out = {key: value for key, value in out.items() if root(key) not in replaced} | layer
    return out


def root(key: str) -> str:
    """The group that a key belongs to."""
    return key.split(".")[0]
