"""The studies at hand, and where two indexers stand beside each other in them."""

from dsa.analysis.inputs.meta import Meta
from paper.source import Study
from paper.wanted import WANTED

Studies = dict[str, Study]


def order(studies: list[Study]) -> Studies:
    """Studies by name, the planned ones first."""
    planned = [wanted.name for wanted in WANTED]
    named = {study.name: study for study in studies}
    first = [name for name in planned if name in named]
    return {name: named[name] for name in [*first, *sorted(set(named) - set(first))]}


def label_of(meta: Meta, indexer: str) -> str | None:
    """The condition that is this indexer and nothing else."""
    for label, options in meta.conditions.items():
        rest = {key: value for key, value in options.items() if key != "indexer"}
        if options.get("indexer") == indexer and rest in ({}, {"precision": "fp32"}):
            return label
    return None


def pairs(studies: Studies, indexer: str, reference: str) -> list[tuple[Study, str, str]]:
    """Studies that hold both indexers, with their labels."""
    out = []
    for study in studies.values():
        mine, theirs = (label_of(study.analysis.prepared.meta, name) for name in (indexer, reference))
        if mine is not None and theirs is not None:
            out.append((study, mine, theirs))
    return out


def places(studies: Studies, indexer: str, reference: str) -> list[tuple[Study, str, str, int]]:
    """The same with each length at which both have runs; runs that several studies share count once."""
    out, seen = [], set()
    for study, mine, theirs in pairs(studies, indexer, reference):
        for length in study.analysis.prepared.lengths:
            runs = [study.analysis.prepared.rows(label, length) for label in (mine, theirs)]
            ids = tuple(frozenset(rows["run_id"]) if "run_id" in rows else frozenset() for rows in runs)
            if all(len(rows) for rows in runs) and ids not in seen:
                seen.add(ids)
                out.append((study, mine, theirs, length))
    return out
