"""One run: its spec, its data, what it needs, and its folder."""

import logging

from dsa.artifacts.results import RunResult, read_result
from dsa.artifacts.store import Store
from dsa.data import DataModule
from dsa.graph import graph_of, run_id
from dsa.spec import Spec
from dsa.training.dashboard import Dashboard

logger = logging.getLogger(__name__)


class Run:
    """One run: its spec, its data, what it needs, and its folder.

    Args:
        data: None if it could not be read; then the run can only fail.
        label, group: of the run on a dashboard.
        silent: no dashboard hears of it.
    """

    def __init__(
        self, spec: Spec, data: DataModule | None, label: str = "run", group: str | None = None, silent: bool = False
    ) -> None:
        self.spec, self.data = spec, data
        self.graph = graph_of(spec, None if data is None else data.fingerprint)
        self.store = Store(spec.outputs, spec.stale)
        place = spec.outputs / spec.study
        name = run_id(spec, self.graph)
        if not (place / name).exists():  # another spelling of the same run may have made it
            name = min((path.name for path in place.glob(f"*-{self.graph.hash}")), default=name)
        self.folder = place / name
        tags = tuple(f"{group}:{option}" for group, option in spec.condition.items())
        self.dashboard = Dashboard(spec, self.folder.name, group or spec.study, label, tags, silent)

    @property
    def name(self) -> str:
        return self.folder.name

    def untrained(self) -> bool:
        """Whether something that the run stands on has to be trained."""
        graph = self.graph
        needs = [need for need in (graph.base, graph.indexers, graph.joint) if need is not None]
        return self.spec.rerun or any(self.store.find(need) is None for need in needs)

    def unjudged(self) -> bool:
        """Whether there is a composition that has not been judged on what the run stands on."""
        return not self.spec.dense and self.store.judgement(self.graph.final) is None

    def finished(self) -> RunResult | None:
        """The run's result, if it is there, whole, and made by this code."""
        result = read_result(self.folder)
        if result is None or result.status != "finished" or self.spec.rerun:
            return None
        if result.provenance.get("code") != self.graph.code and self.spec.stale == "rerun":
            logger.info("%s was made by other code: it is run again (stale=keep accepts it).", self.name)
            return None
        return result
