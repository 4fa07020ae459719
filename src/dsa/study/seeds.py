"""One composed configuration under many seeds: the values that follow from the seed are exchanged, nothing else."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dsa.spec import Part, Spec, spec_of, untouched

Path = tuple[str, ...]
OF_A_SEED = ("${seed}", "${indexer_seed}")


class Template:
    """A configuration, and the specs that it describes under other seeds.

    Args:
        cfg: composed, under any seed.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.spec = cfg, spec_of(cfg)
        raw: Any = OmegaConf.to_container(cfg, resolve=False)
        self.follow = dict(interpolations(raw))
        self.indexer_seed: int | None = None if raw["indexer_seed"] == "${seed}" else self.spec.indexer_seed
        self.plain = all(text in OF_A_SEED or "seed}" not in text for text in self.follow.values())

    def under(self, seed: int, indexer_seed: int | None = None) -> Spec:
        """The spec under a seed, the same as composed with it.

        Args:
            indexer_seed: None for the configuration's own, which mostly is the seed.
        """
        if self.plain:
            own = self.indexer_seed if indexer_seed is None else indexer_seed
            return reseeded(self.spec, seed, seed if own is None else own, self.follow)
        cfg = deepcopy(self.cfg)
        cfg.seed = seed
        if indexer_seed is not None:
            cfg.indexer_seed = indexer_seed
        return spec_of(cfg)


def reseeded(spec: Spec, seed: int, indexer_seed: int, follow: dict[Path, str]) -> Spec:
    """A spec under other seeds.

    Args:
        follow: the places in its configuration that follow from a seed, and from which.
    """
    values = {path: {"${seed}": seed, "${indexer_seed}": indexer_seed}.get(text) for path, text in follow.items()}
    values |= {("seed",): seed, ("indexer_seed",): indexer_seed}
    content = spec.content
    for path, value in values.items():
        if value is not None:
            content = changed(content, path, value)
    touched = {path[0] for path, value in values.items() if len(path) > 1 and value is not None}
    parts = {name: rebuilt(getattr(spec, name), content[name]) for name in PARTS & touched}
    return replace(spec, content=content, seed=seed, indexer_seed=indexer_seed, **parts)  # type: ignore[arg-type]


PARTS = {f.name for f in fields(Spec) if f.type is Part}


def rebuilt(part: Part, node: dict[str, Any]) -> Part:
    return replace(part, node={key: node[key] for key in part.node})


def changed(node: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """Nested dictionaries with another value at a place; the rest is shared."""
    head, *rest = path
    return node | {head: changed(node[head], tuple(rest), value) if rest else value}


def interpolations(node: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every interpolation in plain data, and where it stands; in lists too, under the place of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from interpolations(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            for _, text in interpolations(value, path):
                yield path, f"{text} "  # never exchanged by itself: such a configuration is composed for each seed
    elif isinstance(node, str) and "${" in node:
        yield path, node


def judged_only(spec: Spec) -> Spec:
    """The spec without joint training: the same base and indexers, judged with the backbone untouched.

    Raises:
        ValueError: without a dense stage and a warm-up there is nothing to judge.
    """
    return replace(spec, recipe=untouched(spec.recipe), content=spec.content | {"judge": "swap"})
