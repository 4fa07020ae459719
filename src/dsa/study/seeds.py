"""One composed configuration under many seeds: the values that follow from the seed are exchanged, nothing else."""

from dataclasses import fields, replace
from functools import cached_property
from typing import Any

from dsa.spec import Part, Spec, spec_from, untouched
from dsa.study.plain import Path, changed, interpolations, resolved

OF_A_SEED = ("${seed}", "${indexer_seed}")


class Template:
    """A configuration, and the specs that it describes under other seeds.

    Args:
        cfg: under any seed, interpolations as they are written.
    """

    def __init__(self, cfg: dict[str, Any]) -> None:
        self.cfg, self.spec = cfg, spec_from(resolved(cfg))
        self.follow = dict(interpolations(cfg))
        self.indexer_seed: int | None = None if cfg["indexer_seed"] == "${seed}" else self.spec.indexer_seed
        self.plain = all(text in OF_A_SEED or "seed}" not in text for text in self.follow.values())

    @cached_property
    def untouched(self) -> Spec:
        """Its own spec, judged with the backbone untouched."""
        return judged_only(self.spec)

    def under(self, judge: str, seed: int, indexer_seed: int | None = None) -> Spec:
        """The spec under a seed, the same as composed with it.

        Args:
            judge: swap or val: with the backbone untouched, or after joint training.
            indexer_seed: None for the configuration's own, which mostly is the seed.
        """
        if self.plain:
            own = self.indexer_seed if indexer_seed is None else indexer_seed
            spec = self.untouched if judge == "swap" else self.spec
            return reseeded(spec, seed, seed if own is None else own, self.follow)
        of_indexers = {} if indexer_seed is None else {"indexer_seed": indexer_seed}
        spec = spec_from(resolved(self.cfg | {"seed": seed} | of_indexers))
        return judged_only(spec) if judge == "swap" else spec


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


def judged_only(spec: Spec) -> Spec:
    """The spec without joint training: the same base and indexers, judged with the backbone untouched.

    Raises:
        ValueError: without a dense stage and a warm-up there is nothing to judge.
    """
    return replace(spec, recipe=untouched(spec.recipe, spec.given), content=spec.content | {"judge": "swap"})
