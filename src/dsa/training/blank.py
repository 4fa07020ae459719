"""The result of a run before anything was measured: all that a failed one has."""

from pathlib import Path

from dsa.artifacts.results import RunResult
from dsa.graph import Graph
from dsa.judging.provenance import provenance
from dsa.spec import Spec


def blank(spec: Spec, graph: Graph, folder: Path) -> RunResult:
    """A result that holds only what the configuration says."""
    named = {"base": graph.base, "indexers": graph.indexers, "joint": graph.joint, "control": graph.control}
    return RunResult(
        run_id=folder.name,
        status="failed",
        study=spec.study,
        condition=spec.condition,
        model=spec.model.option,
        data=spec.data.option,
        recipe=spec.options.get("recipe", "custom"),
        seq_len=spec.seq_len,
        seed=spec.seed,
        indexer_seed=spec.indexer_seed,
        folder=str(folder),
        artifacts={kind: None if need is None else need.name for kind, need in named.items()}
        | {"judgement": graph.final.hash},
        dtype=spec.dtype,
        config_hash=graph.hash,
        provenance=provenance(graph.code),
    )
