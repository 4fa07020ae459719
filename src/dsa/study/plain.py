"""Configurations as plain data: values exchanged at a place, interpolations found and resolved."""

import re
from collections.abc import Iterator
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dsa import config
from dsa.share import at_length

Path = tuple[str, ...]
SIMPLE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
"""An interpolation that names one other place from the top."""
SHARE = re.compile(r"\$\{share:[^${}]*\}")
"""A share of the length."""


class NotSimple(Exception):
    """An interpolation that OmegaConf has to resolve."""


def changed(node: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Nested dictionaries with another value at a place; the rest is shared."""
    head, *rest = path
    return node | {head: changed(node[head], tuple(rest), value) if rest else value}


def holds(node: Any, path: Path) -> bool:
    """Whether there is such a place."""
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def resolved(cfg: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every interpolation resolved, as OmegaConf does it; simple ones without it.

    Raises:
        omegaconf.errors.OmegaConfBaseException: an interpolation leads nowhere.
    """
    try:
        return resolve(cfg, cfg, ())
    except NotSimple:
        return config.resolved(OmegaConf.create(cfg))


def resolve(node: Any, cfg: dict[str, Any], within: Path) -> Any:
    """A node with its interpolations resolved.

    Args:
        within: interpolations that led here.

    Raises:
        NotSimple: one is more than a share or the name of another place, or leads nowhere, back, or to what is
            to be given.
    """
    if isinstance(node, dict):
        return {key: resolve(value, cfg, within) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve(value, cfg, within) for value in node]
    if not isinstance(node, str) or "${" not in node:
        return node
    if SHARE.fullmatch(node) and isinstance(cfg.get("seq_len"), int):
        try:
            return at_length(node, cfg["seq_len"])
        except OmegaConfBaseException:
            raise NotSimple from None
    found = SIMPLE.fullmatch(node)
    path = tuple(found[1].split(".")) if found else ()
    if not found or node in within or not holds(cfg, path):
        raise NotSimple
    value: Any = cfg
    for part in path:
        value = value[part]
    if value == MISSING:
        raise NotSimple
    return resolve(value, cfg, (*within, node))


def interpolations(node: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every interpolation in plain data, and where it stands; in lists too, under the place of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from interpolations(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            for _, text in interpolations(value, path):
                yield path, f"{text} "  # never exchanged by itself: such a configuration is resolved for each seed
    elif isinstance(node, str) and "${" in node:
        yield path, node
