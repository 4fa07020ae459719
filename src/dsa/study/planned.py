"""One run of a study as planned: which condition it is, what it describes, and what must exist for it."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dsa.graph import Graph, graph_of, run_id
from dsa.spec import Spec
from dsa.study.question import Study
from dsa.study.seeds import Template
from dsa.study.states import written


@dataclass(frozen=True)
class Point:
    """A condition or control at one length: what its runs under every seed share.

    Args:
        label: of the condition or control.
        role: control or condition.
        context: what it changes besides what is compared; empty where all conditions share it.
        reason: why it cannot apply; None if it can.
        corpus: fingerprint of its data; None if they could not be read.
        indexers_apart: how far the seeds of its indexers lie from those of the conditions.
    """

    label: str
    role: str
    seq_len: int
    context: str
    template: Template = field(repr=False)
    reason: str | None
    corpus: str | None
    indexers_apart: int = 0

    def runs(self, study: Study, judge: str, seeds: list[int], phase: str | None) -> "Iterator[PlannedRun]":
        """Its runs: one for each seed and, where it has an indexer, each seed of the indexers."""
        of_indexers: list[int | None] = [*study.indexer_seed] if study.indexer_seed else [None]
        seen = set()
        for seed, other in itertools.product(seeds, of_indexers):
            if self.indexers_apart:
                other = (seed if other is None else other) + self.indexers_apart
            run = PlannedRun(self, self.template.under(judge, seed, other), judge, phase)
            key = run.seed if run.reason is not None else run.hash
            if key not in seen:
                seen.add(key)
                yield run


@dataclass(frozen=True)
class PlannedRun:
    """One run: which condition it is, what it describes, and what must exist for it.

    Args:
        judge: swap or val: with the backbone untouched, or after joint training.
        phase: selection or confirmation; None in a study that chooses no finalists.
    """

    point: Point
    spec: Spec = field(repr=False)
    judge: str
    phase: str | None

    @property
    def label(self) -> str:
        return self.point.label

    @property
    def role(self) -> str:
        return self.point.role

    @property
    def context(self) -> str:
        return self.point.context

    @property
    def reason(self) -> str | None:
        return self.point.reason

    @property
    def seq_len(self) -> int:
        return self.spec.seq_len

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def study(self) -> str:
        return self.spec.study

    @functools.cached_property
    def graph(self) -> Graph:
        """What must exist for it; only of a run that can apply."""
        return graph_of(self.spec, self.point.corpus)

    @functools.cached_property
    def hash(self) -> str:
        """Of what its numbers come from: two runs of equal hash have equal numbers."""
        return self.graph.hash

    @functools.cached_property
    def run_id(self) -> str:
        """Its readable name; another spelling of the same run may have named its folder."""
        place = self.spec.outputs / self.study
        return folders_in(place, written(place)).get(self.hash) or run_id(self.spec, self.graph)

    @functools.cached_property
    def folder(self) -> Path:
        return self.spec.outputs / self.study / self.run_id

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other run of a sweep."""
        return self.study, self.hash

    @property
    def compared_as(self) -> str:
        """What the analysis takes it for: condition, or the control's name."""
        return self.label.split("-")[0] if self.role == "control" else self.role


@functools.lru_cache(maxsize=64)
def folders_in(place: Path, changed: int | None) -> dict[str, str]:
    """Run folders of a study by the hash they end in, as the study's folder was when it last changed."""
    return {} if changed is None else {path.name.rpartition("-")[2]: path.name for path in place.glob("*-*")}
