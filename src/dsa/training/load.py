"""Trained models from run folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dsa.artifacts.results import FILE, SCHEMA, read_result
from dsa.artifacts.store import RECORD, Store, read_json
from dsa.backbones import SparseTransformer
from dsa.graph import graph_of
from dsa.judging.calibrate import restore
from dsa.judging.models import Models
from dsa.spec import Spec, spec_of
from dsa.training.run import CONFIG


def load_run(path: str | Path, allow_targets: Sequence[str] = ()) -> SparseTransformer:
    """The model of a finished run with its trained weights, in evaluation mode.

    Args:
        path: of the run folder, where the command that made it put it: its artifacts lie beside its study.
        allow_targets: packages of your own whose classes the run's configuration may name.

    Raises:
        FileNotFoundError: the folder holds no finished run, or its artifacts are gone.
        ValueError: an older version wrote it.
    """
    folder = Path(path)
    result = read_result(folder)
    if result is None or result.status != "finished":
        values = read_json(folder / FILE)
        if values is not None and values.get("schema") != SCHEMA:
            raise ValueError(f"{folder}: its result has schema {values.get('schema')}; dsa 0.1 wrote it and reads it.")
        state = "no result" if result is None else f"status {result.status}"
        raise FileNotFoundError(f"{folder}: {state}; load_run reads finished runs.")
    spec = spec_in(folder, allow_targets)
    graph = graph_of(spec, result.corpus)
    store = Store(spec.outputs, "keep")
    weights = graph.final.needs[0]
    record = read_json(store.folder(weights) / RECORD)
    judgement = store.judgement(graph.final)
    if record is None or judgement is None:
        raise FileNotFoundError(f"{folder}: {store.folder(weights)} or its judgement is not there; the run needs it.")
    model = Models(store, record["vocab_size"]).of(spec, graph.final)
    restore(model, judgement.get("constants", {}))
    return model.eval()


def spec_in(folder: Path, allow_targets: Sequence[str] = ()) -> Spec:
    """The spec of the run in a folder, with its artifacts where they lie now.

    Args:
        allow_targets: packages of your own whose classes it may name; the file itself admits none.
    """
    cfg: Any = OmegaConf.load(folder / CONFIG)
    cfg.allow_targets = list(allow_targets)
    cfg.output_dir = str(folder.resolve().parents[1])
    return spec_of(cfg)
