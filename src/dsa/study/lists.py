"""Lists as they may be written: a,b or [a,b] or range(0,8), in a yaml and on the command line."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import ListConfig


def as_list(value: Any) -> list[Any]:
    """The values that a setting lists; a single value is a list of one."""
    if isinstance(value, list | tuple | ListConfig):
        return list(value)
    if isinstance(value, str) and "${" not in value:
        return values_of(OverridesParser.create().parse_override(f"key={value}"))
    return [value]


def values_of(override: Override) -> list[Any]:
    """The values of an override on the command line."""
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise ValueError(f"{override.input_line}: a study takes lists (a,b or range(0,8)), not intervals.")
        parser = OverridesParser.create()
        return [parser.parse_override(f"key={text}").value() for text in override.sweep_string_iterator()]
    value = override.value()
    return list(value) if isinstance(value, list) else [value]
