"""Many configurations in little time: each option is read or composed once, then merged as plain data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from dsa.cli_errors import alternatives
from dsa.config import marked
from dsa.share import at_length
from dsa.study.plain import changed, holds

Load = Callable[[list[str]], DictConfig]  # overrides -> the whole configuration, Hydra's part included
Layer = dict[str, Any]  # overrides by key, groups and dotted values alike
Plain = dict[str, Any]  # a configuration, interpolations as they are written


class Composer:
    """Configurations equal to full composition, at a thousandth of its cost.

    Args:
        load: Hydra's composition of sweep.yaml.
        extra: overrides that hold for every run and only Hydra understands (+key=value, ~key).
        private: keys of sweep.yaml that no run has.
    """

    def __init__(self, load: Load, extra: list[str], private: set[str]) -> None:
        self.load, self.extra, self.private = load, extra, private
        self.composed: dict[tuple[str, ...], Plain] = {}
        self.choices: dict[tuple[str, ...], dict[str, Any]] = {}
        self.files: dict[str, Plain | None] = {}
        self.places: list[Path] = []
        self.whole(())
        self.groups = set(self.choices[()])

    def whole(self, overrides: tuple[str, ...]) -> Plain:
        """Hydra's own composition, remembered."""
        if overrides not in self.composed:
            cfg = self.load([*self.extra, *overrides])
            choices = {k: v for k, v in cfg.hydra.runtime.choices.items() if "/" not in k and k != "study"}
            self.places = [Path(source.path) for source in cfg.hydra.runtime.config_sources if source.schema == "file"]
            with open_dict(cfg):
                for key in ("hydra", *self.private):
                    cfg.pop(key, None)
            self.composed[overrides] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
            self.choices[overrides] = choices
        return self.composed[overrides]

    def config(self, layers: Layer) -> Plain:
        """The configuration with these overrides, shares of the length worked out.

        Raises:
            hydra.errors.HydraException: an option does not exist; the message lists what does.
            ValueError: a key does not exist.
        """
        groups = {key: value for key, value in layers.items() if key in self.groups}
        wide = tuple(f"{group}={option}" for group, option in groups.items() if self.reaches_out(group, option))
        cfg, choices = dict(self.whole(wide)), dict(self.choices[wide])
        for group, option in groups.items():
            if f"{group}={option}" not in wide:
                cfg[group] = self.node(group, option, wide)
                choices[group] = option
        values = {key: value for key, value in layers.items() if key not in self.groups}
        seq_len = values.get("seq_len", cfg["seq_len"])
        for key, value in values.items():
            cfg = self.put(cfg, key, at_length(value, seq_len), choices)
        return cfg | marked(choices, [*self.extra, *(f"{key}={value}" for key, value in values.items())])

    def node(self, group: str, option: str, wide: tuple[str, ...] = ()) -> Plain:
        """What an option holds: as its file says, or as Hydra composes it.

        Args:
            wide: options chosen beside it that change more than their own group.
        """
        found = None if wide else self.file(group, option)
        return self.whole((*wide, f"{group}={option}"))[group] if found is None else found

    def file(self, group: str, option: str) -> Plain | None:
        """An option whose file is all that there is to it; None if Hydra has to compose it."""
        name = f"{group}={option}"
        if name not in self.files:
            paths = [place / group / f"{option}.yaml" for place in self.places]
            path = next((path for path in paths if path.is_file()), None)
            changed = any(root(override.lstrip("+~")).split("=")[0] == group for override in self.extra)
            self.files[name] = None if path is None or changed else content_in(path.read_text(encoding="utf-8"))
        return self.files[name]

    def study(self, name: str) -> Any:
        """What a study's yaml holds: as its file says, or as Hydra composes it.

        Raises:
            hydra.errors.HydraException: there is none; the message lists what there is.
        """
        paths = [place / "study" / f"{name}.yaml" for place in self.places]
        path = next((path for path in paths if path.is_file()), None)
        text = "" if path is None else path.read_text(encoding="utf-8")
        head, _, rest = text.partition("\n")
        found = content_in(rest) if head.strip() == "# @package plan" else None
        return OmegaConf.to_container(self.load([f"study={name}"]).plan, resolve=False) if found is None else found

    def put(self, cfg: Plain, key: str, value: Any, choices: dict[str, Any]) -> Plain:
        """The configuration with another value at a key that it has."""
        path = tuple(key.split("."))
        if not holds(cfg, path):
            refuse(cfg, key, value, choices)
        if isinstance(value, dict) and isinstance(cfg.get(path[0]), dict):
            for inner, one in value.items():
                cfg = self.put(cfg, f"{key}.{inner}", one, choices)
            return cfg
        return changed(cfg, path, value)

    def has(self, key: str, option: str) -> bool:
        """Whether a setting exists with an option, given as group=option."""
        group, _, name = option.partition("=")
        return holds({group: self.node(group, name)}, tuple(key.split(".")))

    def reaches_out(self, group: str, option: str) -> bool:
        """Whether an option changes more than its own group, as an experiment does; Hydra then composes it whole."""
        if self.file(group, option) is not None:
            return False
        base, changed = self.whole(()), self.whole((f"{group}={option}",))
        return any(base.get(key) != changed.get(key) for key in (base.keys() | changed.keys()) - {group})


def content_in(text: str) -> Plain | None:
    """A yaml's content; None if it says where it is placed (@package), or begins with other options."""
    if "@package" in text:
        return None
    content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    return content if isinstance(content, dict) and "defaults" not in content else None  # type: ignore[return-value]


def refuse(cfg: Plain, key: str, value: Any, choices: dict[str, Any]) -> None:
    """Say that there is no such key, and what there is.

    Raises:
        ValueError: always.
    """
    whole = OmegaConf.create(cfg)
    OmegaConf.set_struct(whole, True)
    try:
        OmegaConf.update(whole, key, value)
    except (ConfigAttributeError, ConfigKeyError) as error:
        option = f" of {root(key)}={choices[root(key)]}" if root(key) in choices else ""
        raise ValueError(f"{key} = {value}: no such setting{option}. {alternatives(error)}") from error
    raise ValueError(f"{key} = {value}: no such setting.")


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
